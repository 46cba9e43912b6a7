"""What this process sees of each backend and model: load, latency windows, breaker."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from policies.candidates import Live
from policies.latency import LatencyWindow

REFRESH_US: Final = 250_000  # how old percentiles and breaker states in `live` may be
_EWMA_DECAY_US: Final = 10_000_000

Key = tuple[str, str]  # backend_id, upstream_model


class Outcome(StrEnum):
    """What an attempt tells of its backend. Only SERVED and FAILED move the breaker: neither a
    client's mistake nor its hang-up says anything about the backend's health.
    """

    SERVED = "served"
    FAILED = "failed"  # no connection, time-out, 5xx (503 too), broken or cut answer
    REFUSED = "refused"  # 429: alive, and wants less
    CLIENT_ERROR = "client_error"  # any other 4xx
    ABANDONED = "abandoned"  # the client hung up, or we had no more use for the answer


class Flight:
    """One attempt under way. `ended` must be called exactly once; a second call does nothing."""

    __slots__ = ("_seat", "_started_us", "_tokens", "ttft_us")

    def __init__(self, seat: "Seat", tokens: int, now_us: int) -> None:
        self.ttft_us: int | None = None
        self._seat: Seat | None = seat
        self._tokens = tokens
        self._started_us = now_us

    def first_byte(self, now_us: int) -> None:
        """The first content came in; later calls do nothing."""
        seat = self._seat
        if seat is not None and self.ttft_us is None:
            self.ttft_us = now_us - self._started_us
            seat.saw_first_byte(self.ttft_us, now_us)

    def ended(self, outcome: Outcome, now_us: int, output_tokens: int = 0) -> None:
        """`output_tokens` of a stream gives time per token: the time after the first one, shared
        among the tokens after the first; leave it 0 for plain answers.
        """
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.left(self, self._tokens, outcome, now_us, now_us - self._started_us, output_tokens)


class Seat:
    """One backend and model: its windows and its line in `live`."""

    __slots__ = ("_ewma_at_us", "live", "total", "tpot", "ttft")

    def __init__(self) -> None:
        self.live = Live()
        self.ttft = LatencyWindow()
        self.tpot = LatencyWindow()
        self.total = LatencyWindow()
        self._ewma_at_us = 0

    def saw_first_byte(self, ttft_us: int, now_us: int) -> None:
        raise RuntimeError

    def left(
        self,
        flight: Flight,
        tokens: int,
        outcome: Outcome,
        now_us: int,
        total_us: int,
        output_tokens: int,
    ) -> None:
        raise RuntimeError


class Backends:
    """All of them. Times are `clock.monotonic_us()`."""

    def __init__(self) -> None:
        self._seats: dict[Key, Seat] = {}
        self._live: dict[Key, Live] = {}

    def began(self, backend_id: str, upstream_model: str, tokens: int, now_us: int) -> Flight:
        """An attempt starts: it counts as load from here until its flight has ended."""
        key = (backend_id, upstream_model)
        seat = self._seats.get(key)
        if seat is None:
            seat = self._seats[key] = Seat()
            self._live[key] = seat.live
        return Flight(seat, tokens, now_us)

    def live(self, now_us: int) -> Mapping[Key, Live]:
        """For `route`: load is exact, percentiles and breaker at most REFRESH_US old."""
        raise RuntimeError

    def seat(self, backend_id: str, upstream_model: str) -> Seat | None:
        """For the status page."""
        return self._seats.get((backend_id, upstream_model))
