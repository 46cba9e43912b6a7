"""What this process sees of each backend and model: load, latency windows, breaker.

Windows hold what was measured here and, beside it, what other workers say they measured.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from policies import breaker
from policies.breaker import Breaker, State
from policies.candidates import Live
from policies.latency import SLOT_US, Counts, LatencyWindow
from policies.objectives import Objective, View

REFRESH_US: Final = 250_000  # how old percentiles in `live` may be; a percentile is not free
_FORGET_VIEW_US: Final = 60_000_000  # nobody has asked for it for so long
_MOST_SEATS: Final = 4_096  # made for what others say: a bound
_EWMA_US: Final = 10_000_000  # a slow answer has lost 63 % of its weight after this long

SERVED: Final = 0  # buckets of the outcomes
FAILED: Final = 1
RINGS: Final = ("ttft", "tpot", "total", "outcomes")  # the windows of a seat, as they travel

Key = tuple[str, str]  # backend_id, upstream_model


class Outcome(StrEnum):
    """What an attempt tells of its backend.

    Only SERVED and FAILED move the breaker: neither a client's mistake nor its hang-up says
    anything about the backend's health.
    """

    SERVED = "served"
    FAILED = "failed"  # no connection, time-out, 5xx (503 too), broken or cut answer
    REFUSED = "refused"  # 429: alive, and wants less
    CLIENT_ERROR = "client_error"  # any other 4xx
    ABANDONED = "abandoned"  # the client hung up, or we had no more use for the answer


class Seat:
    """One backend and model: its windows, its breaker and its line in `live`."""

    __slots__ = ("_breaker", "_ewma_at_us", "live", "outcomes", "total", "tpot", "ttft")

    def __init__(self) -> None:
        self.live = Live()
        self.ttft = LatencyWindow()  # streams only: a plain answer has no first token to see
        self.tpot = LatencyWindow()
        self.total = LatencyWindow()
        self.outcomes = LatencyWindow()  # SERVED or FAILED; what says nothing of it is not in it
        self._breaker: Breaker = breaker.CLOSED
        self._ewma_at_us = 0

    def breaker_state(self, now_us: int) -> State:
        return breaker.state(self._breaker, now_us)

    def rings(self) -> tuple[LatencyWindow, ...]:
        """In the order of RINGS."""
        return self.ttft, self.tpot, self.total, self.outcomes

    def refresh(self, now_us: int, asked: Iterable[Objective] = ()) -> None:
        live = self.live
        live.available = breaker.allows(self._breaker, now_us)
        live.ttft_p95_us = self.ttft.percentile(95, now_us)
        live.tpot_p95_us = self.tpot.percentile(95, now_us)
        live.total_p95_us = self.total.percentile(95, now_us)
        live.samples = self.ttft.samples(now_us)
        live.others = {each.view: self._measured(each, now_us) for each in asked}

    def _measured(self, asked: Objective, now_us: int) -> int | None:
        window: LatencyWindow = getattr(self, asked.metric)
        return window.percentile(asked.percentile, now_us, asked.window_s * 1_000_000 // SLOT_US)

    def enter(self, tokens: int, now_us: int) -> None:
        self.live.in_flight += 1
        self.live.in_flight_tokens += tokens
        self._move(breaker.began(self._breaker, now_us), now_us)

    def saw_first_byte(self, ttft_us: int, now_us: int) -> None:
        self.ttft.add(ttft_us, now_us)
        live = self.live
        if ttft_us < live.ttft_ewma_us:  # up at once, down slowly: trouble is noticed on sight
            kept = math.exp((self._ewma_at_us - now_us) / _EWMA_US)
            ttft_us += round((live.ttft_ewma_us - ttft_us) * kept)
        live.ttft_ewma_us = ttft_us
        self._ewma_at_us = now_us

    def leave(self, tokens: int, outcome: Outcome, now_us: int) -> None:
        self.live.in_flight -= 1
        self.live.in_flight_tokens -= tokens
        if outcome is Outcome.SERVED:
            self.outcomes.add(SERVED, now_us)
            self._move(breaker.succeeded(self._breaker, now_us), now_us)
        elif outcome is Outcome.FAILED:
            self.outcomes.add(FAILED, now_us)
            self._move(breaker.failed(self._breaker, now_us), now_us)
        else:
            self._move(breaker.released(self._breaker, now_us), now_us)

    def _move(self, after: Breaker, now_us: int) -> None:
        if after is not self._breaker:
            self._breaker = after
            self.live.available = breaker.allows(after, now_us)


class Flight:
    """One attempt under way. `ended` is its end; what comes after does nothing."""

    __slots__ = ("_seat", "_started_us", "_tokens", "ttft_us")

    def __init__(self, seat: Seat, tokens: int, now_us: int) -> None:
        self.ttft_us: int | None = None
        self._seat: Seat | None = seat
        self._tokens = tokens
        self._started_us = now_us
        seat.enter(tokens, now_us)

    def first_byte(self, now_us: int) -> None:
        """The first content of a stream came in; only the first call counts."""
        if self._seat is not None and self.ttft_us is None:
            self.ttft_us = now_us - self._started_us
            self._seat.saw_first_byte(self.ttft_us, now_us)

    def ended(self, outcome: Outcome, now_us: int, output_tokens: int = 0) -> None:
        """`output_tokens` of a stream gives the time per token after the first; 0 if unknown."""
        seat, self._seat = self._seat, None
        if seat is None:
            return
        seat.leave(self._tokens, outcome, now_us)
        total_us = now_us - self._started_us
        if outcome is Outcome.SERVED:
            seat.total.add(total_us, now_us)
        if self.ttft_us is not None and output_tokens > 1:
            seat.tpot.add((total_us - self.ttft_us) // (output_tokens - 1), now_us)


class Backends:
    """All of them. Times are `clock.monotonic_us()`."""

    def __init__(self) -> None:
        self._seats: dict[Key, Seat] = {}
        self._live: dict[Key, Live] = {}
        # Beside the usual ones, each with the time at which it was last asked for.
        self._asked: dict[View, tuple[Objective, int]] = {}
        self._refreshed_us = -REFRESH_US

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
            asked = self._asked_of_late(now_us) if self._asked else []
            for seat in self._seats.values():
                seat.refresh(now_us, asked)
        return self._live

    def _asked_of_late(self, now_us: int) -> list[Objective]:
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
