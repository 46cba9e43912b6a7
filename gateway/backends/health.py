"""What this process sees of all backends and models, and who of them is out of line."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from gateway.backends.seat import FAILED, RINGS, SERVED, Flight, Outcome, Seat
from policies import outliers
from policies.candidates import Gauges, Live
from policies.latency import Counts
from policies.objectives import Objective, View

__all__ = ["FAILED", "RINGS", "SERVED", "Backends", "Flight", "Key", "Outcome", "Seat"]

REFRESH_US: Final = 250_000  # how old percentiles in `live` may be; a percentile is not free
SWEEP_US: Final = 1_000_000
SAID_US: Final = 8_000_000  # what a backend says of itself holds for so long
SILENT: Final = Gauges()
_FORGET_VIEW_US: Final = 60_000_000  # nobody has asked for it for so long
_MOST_SEATS: Final = 4_096  # made for what others say: a bound

Key = tuple[str, str]  # backend_id, upstream_model


class Backends:
    """All of them. Times are `clock.monotonic_us()`."""

    def __init__(self) -> None:
        self._seats: dict[Key, Seat] = {}
        self._live: dict[Key, Live] = {}
        # Beside the usual ones, each with the time at which it was last asked for.
        self._asked: dict[View, tuple[Objective, int]] = {}
        self._refreshed_us = -REFRESH_US
        self._swept_us = -SWEEP_US
        self._said: Mapping[str, Gauges] = {}
        self._said_until_us = 0

    def began(self, backend_id: str, upstream_model: str, tokens: int, now_us: int) -> Flight:
        """An attempt starts: it counts as load from here until its flight has ended."""
        return Flight(self._seat((backend_id, upstream_model)), tokens, now_us)

    def _seat(self, key: Key) -> Seat:
        seat = self._seats.get(key)
        if seat is None:
            seat = self._seats[key] = Seat()
            self._live[key] = seat.live
        return seat

    def beside(self, key: Key, windows: Sequence[Mapping[int, Counts]], now_us: int) -> None:
        """What other workers have measured of it, by slot, in the order of RINGS."""
        if key not in self._seats and len(self._seats) >= _MOST_SEATS:
            return
        for window, slots in zip(self._seat(key).rings(), windows, strict=True):
            window.beside(slots, now_us)

    def rest(self, keys: Iterable[Key], rest_ms: int, now_us: int) -> None:
        """These share a limit with one that asked to be left alone for so long."""
        for key in keys:
            self._seat(key).rest(now_us + rest_ms * 1_000, now_us)

    def rests(self, key: Key, now_us: int) -> bool:
        seat = self._seats.get(key)
        return seat is not None and seat.rests(now_us)

    def say(self, found: Mapping[str, Gauges], now_us: int) -> None:
        """What backends publish of their load, by backend id: instead of what they said before."""
        self._said, self._said_until_us = found, now_us + SAID_US

    def watch(self, asked: Iterable[Objective], now_us: int) -> None:
        """Measures these from now on, for as long as somebody goes on asking."""
        for each in asked:
            view = each.view
            if view not in self._asked:
                self._refreshed_us = now_us - REFRESH_US
            self._asked[view] = (each, now_us)

    def live(self, now_us: int) -> Mapping[Key, Live]:
        """For `route`: load and a breaker's opening are exact, the rest at most REFRESH_US old."""
        if now_us - self._refreshed_us >= REFRESH_US:
            self._refreshed_us = now_us
            asked = self.watched(now_us)
            if now_us - self._swept_us >= SWEEP_US:
                self._swept_us = now_us
                self._sweep(now_us)
            said = self._said if now_us < self._said_until_us else {}
            for key, seat in self._seats.items():
                seat.refresh(now_us, asked)
                says = said.get(key[0], SILENT)
                seat.live.waiting, seat.live.cache_permille = says.waiting, says.cache_permille
        return self._live

    def _sweep(self, now_us: int) -> None:
        """Compares the backends of each model with one another."""
        peers: dict[str, list[Seat]] = {}
        for (_, upstream_model), seat in self._seats.items():
            peers.setdefault(upstream_model, []).append(seat)
        for seats in peers.values():
            if len(seats) < 2:
                continue
            seen = {at: seat.judged(now_us) for at, seat in enumerate(seats)}
            standings = {at: seat.standing for at, seat in enumerate(seats)}
            for at, standing in outliers.sweep(standings, seen, now_us).items():
                seats[at].standing = standing

    def watched(self, now_us: int) -> list[Objective]:
        """What is measured beside the usual figures, as far as somebody has asked for it lately."""
        if not self._asked:
            return []
        self._asked = {
            view: known
            for view, known in self._asked.items()
            if now_us - known[1] <= _FORGET_VIEW_US
        }
        return [objective for objective, _ in self._asked.values()]

    def seats(self) -> Mapping[Key, Seat]:
        """Every backend and model that was ever tried."""
        return self._seats

    def seat(self, backend_id: str, upstream_model: str) -> Seat | None:
        """For those who show what is going on; None for one never tried."""
        return self._seats.get((backend_id, upstream_model))
