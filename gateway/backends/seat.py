"""One backend and model as this process sees it, and one attempt at it under way.

Windows hold what was measured here and, beside it, what other workers say they measured.
"""

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from policies import breaker, concurrency, outliers
from policies.breaker import Breaker, State
from policies.candidates import Live
from policies.concurrency import Room
from policies.latency import SLOT_US, LatencyWindow, percentile_of
from policies.objectives import Objective

SERVED: Final = 0  # buckets of the outcomes
FAILED: Final = 1
RINGS: Final = ("ttft", "tpot", "total", "outcomes")  # the windows of a seat, as they travel

_EWMA_US: Final = 10_000_000  # a slow answer has lost 63 % of its weight after this long
_JUDGED_SLOTS: Final = 2


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


# As every request names it; Python looks a member of an enumeration up the slow way each time.
_SERVED: Final = Outcome.SERVED


class Seat:
    """Its windows, its breaker, its room and its line in `live`."""

    __slots__ = (
        "_breaker",
        "_closed_at_us",
        "_ewma_at_us",
        "_rests_until_us",
        "_room",
        "live",
        "outcomes",
        "standing",
        "total",
        "tpot",
        "ttft",
    )

    def __init__(self) -> None:
        self.live = Live()
        self.ttft = LatencyWindow()  # streams only: a plain answer has no first token to see
        self.tpot = LatencyWindow()
        self.total = LatencyWindow()
        self.outcomes = LatencyWindow()  # SERVED or FAILED; what says nothing of it is not in it
        self.standing = outliers.IN_LINE  # among its peers
        self._breaker: Breaker = breaker.CLOSED
        self._room: Room = concurrency.FREE
        self._closed_at_us: int | None = None  # when its breaker closed again
        self._rests_until_us = 0
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
        live.others = {each.view: self.measured(each, now_us) for each in asked}
        self._room = concurrency.turned(self._room, live.in_flight, now_us)
        live.room = self._room.limit
        live.rest_ms = max(0, (self._rests_until_us - now_us + 999) // 1_000)
        live.share = self._share(now_us)

    def _share(self, now_us: int) -> int:
        share = outliers.share(self.standing, now_us)
        if self._closed_at_us is None:
            return share
        return min(share, outliers.ramp(self._closed_at_us, now_us))

    def measured(self, asked: Objective, now_us: int) -> int | None:
        """Microseconds, of what all workers have told; None: too few samples."""
        window: LatencyWindow = getattr(self, asked.metric)
        return window.percentile(asked.percentile, now_us, asked.window_s * 1_000_000 // SLOT_US)

    def judged(self, now_us: int) -> outliers.Seen:
        """What its peers are compared by: lately, and not from before it was out or dead. While its
        breaker is not closed, that is the judge.
        """
        if breaker.state(self._breaker, now_us) is not State.CLOSED:
            return outliers.Seen()
        newest, since_us = _JUDGED_SLOTS, self._closed_at_us
        if self.standing.out_until_us is not None:
            since_us = max(since_us or 0, self.standing.out_until_us)
        if since_us is not None:
            newest = min(newest, now_us // SLOT_US - since_us // SLOT_US)
        if newest < 1:
            return outliers.Seen()
        outcomes, ttft = self.outcomes.counts(now_us, newest), self.ttft.counts(now_us, newest)
        enough = sum(ttft.values()) >= outliers.LEAST
        return outliers.Seen(
            sum(outcomes.values()),
            outcomes.get(FAILED, 0),
            percentile_of(ttft, 50) if enough else None,
        )

    def enter(self, tokens: int, now_us: int) -> None:
        live = self.live
        live.in_flight += 1
        live.in_flight_tokens += tokens
        if live.in_flight > self._room.most:
            self._room = concurrency.began(self._room, live.in_flight)
        self._move(breaker.began(self._breaker, now_us), now_us)

    def saw_first_byte(self, ttft_us: int, now_us: int) -> None:
        self.ttft.add(ttft_us, now_us)
        self._room = concurrency.answered(self._room, ttft_us)
        live = self.live
        if ttft_us < live.ttft_ewma_us:  # up at once, down slowly: trouble is noticed on sight
            kept = math.exp((self._ewma_at_us - now_us) / _EWMA_US)
            ttft_us += round((live.ttft_ewma_us - ttft_us) * kept)
        live.ttft_ewma_us = ttft_us
        self._ewma_at_us = now_us

    def wants_less(self, rest_ms: int, now_us: int) -> None:
        """The backend refused for load, and asked to be left alone for so long; 0: it did not."""
        self._room = concurrency.refused(self._room, self.live.in_flight)
        self.live.room = self._room.limit
        if rest_ms:
            self.rest(now_us + rest_ms * 1_000, now_us)

    def rest(self, until_us: int, now_us: int) -> None:
        self._rests_until_us = max(self._rests_until_us, until_us)
        self.live.rest_ms = (self._rests_until_us - now_us + 999) // 1_000

    def rests(self, now_us: int) -> bool:
        return now_us < self._rests_until_us

    def leave(self, tokens: int, outcome: Outcome, now_us: int) -> None:
        self.live.in_flight -= 1
        self.live.in_flight_tokens -= tokens
        if outcome is _SERVED:
            self.outcomes.add(SERVED, now_us)
            self._move(breaker.succeeded(self._breaker, now_us), now_us)
        elif outcome is Outcome.FAILED:
            self.outcomes.add(FAILED, now_us)
            self._move(breaker.failed(self._breaker, now_us), now_us)
        else:
            self._move(breaker.released(self._breaker, now_us), now_us)

    def _move(self, after: Breaker, now_us: int) -> None:
        before = self._breaker
        if after is not before:
            self._breaker = after
            self.live.available = breaker.allows(after, now_us)
            if before.opened_at_us is not None and after.opened_at_us is None:
                self._closed_at_us = now_us
                self.live.share = self._share(now_us)


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

    def wants_less(self, rest_ms: int, now_us: int) -> None:
        """The backend refused for load: as `Seat.wants_less`, before `ended`."""
        if self._seat is not None:
            self._seat.wants_less(rest_ms, now_us)

    def ended(self, outcome: Outcome, now_us: int, output_tokens: int = 0) -> None:
        """`output_tokens` of a stream gives the time per token after the first; 0 if unknown."""
        seat, self._seat = self._seat, None
        if seat is None:
            return
        seat.leave(self._tokens, outcome, now_us)
        total_us = now_us - self._started_us
        if outcome is _SERVED:
            seat.total.add(total_us, now_us)
        if self.ttft_us is not None and output_tokens > 1:
            seat.tpot.add((total_us - self.ttft_us) // (output_tokens - 1), now_us)
