"""Who is tried next, told only what happened. Nothing is ever asked twice of a world that may have
answered: a retry needs proof that the last attempt was not processed, and a budget to pay for it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from policies.candidates import Candidate

_REFUSALS: Final = frozenset({429, 503, 529})


class Outcome(StrEnum):
    """How an attempt ended, as far as it matters for the next one."""

    ANSWERED = "answered"  # there is an answer for the client, a client error included
    NOT_SENT = "not_sent"  # no byte of the request left: no connection was made
    REFUSED = "refused"  # the backend said that it would not take it: 429, 503, 529
    UNCERTAIN = "uncertain"  # it may have been processed: cut, timed out, 5xx, nonsense

    @property
    def provably_unprocessed(self) -> bool:
        return self in (Outcome.NOT_SENT, Outcome.REFUSED)


def outcome_of_status(status: int) -> Outcome:
    """What an HTTP status says of an attempt whose whole head has come."""
    if status in _REFUSALS:
        return Outcome.REFUSED
    return Outcome.UNCERTAIN if status >= 500 else Outcome.ANSWERED


def outcome_of_failure(*, sent: bool) -> Outcome:
    """What a transport failure says; `sent`: whether any byte of the request may have left."""
    return Outcome.UNCERTAIN if sent else Outcome.NOT_SENT


class RetryBudget:
    """Retries of the last second: at most a tenth of its requests, but three are always allowed.

    One a process. An outage of one backend therefore cannot double the load of the others.
    """

    WINDOW_US: Final = 1_000_000
    SHARE: Final = 10  # one retry to so many requests
    FLOOR: Final = 3

    __slots__ = ("_requests", "_retries")

    def __init__(self) -> None:
        self._requests: deque[int] = deque()
        self._retries: deque[int] = deque()

    def request(self, now_us: int) -> None:
        """Count a first attempt."""
        requests = self._requests
        requests.append(now_us)
        if requests[0] <= now_us - self.WINDOW_US:
            self._forget(requests, now_us)

    def take(self, now_us: int) -> bool:
        """Take one retry; False when the budget is spent, and then nothing is taken."""
        self._forget(self._requests, now_us)
        self._forget(self._retries, now_us)
        if len(self._retries) >= max(self.FLOOR, len(self._requests) // self.SHARE):
            return False
        self._retries.append(now_us)
        return True

    def _forget(self, times: deque[int], now_us: int) -> None:
        over = now_us - self.WINDOW_US
        while times and times[0] <= over:
            times.popleft()


class Attempts:
    """One request's way down its plan. Attempts are numbered from 0, as in the usage event's id.

    A hedge is the next attempt of the plan, begun while the one before it is still waited for; it
    is paid by the same budget as a retry, so that both together stay within it.
    """

    __slots__ = ("_at", "_budget", "_candidates", "_rests", "number")

    def __init__(
        self,
        candidates: Sequence[Candidate],
        budget: RetryBudget,
        rests: Callable[[Candidate], bool] = lambda _: False,
    ) -> None:
        """`rests`: who has asked, since the plan was made, to be left alone; such are passed over.

        ValueError without a candidate: a plan has at least one attempt.
        """
        if not candidates:
            raise ValueError("a plan without attempts cannot be driven")
        self._candidates = list(candidates)
        self._budget = budget
        self._rests = rests
        self._at = 0  # in the plan; those passed over have no number
        self.number = 0

    @property
    def left(self) -> Sequence[Candidate]:
        """Those not tried so far, from the one that is next."""
        later = self._candidates[self._at + 1 :]
        return [self._candidates[self._at], *(each for each in later if not self._rests(each))]

    def instead(self, candidate: Candidate) -> None:
        """`candidate`, of those left, is next: it has room."""
        at = self._candidates.index(candidate, self._at)
        self._candidates.insert(self._at, self._candidates.pop(at))

    def begin(self, now_us: int) -> Candidate:
        """The first attempt; counts the request."""
        self._budget.request(now_us)
        return self._candidates[0]

    @property
    def current(self) -> Candidate:
        """Whoever was tried last."""
        return self._candidates[self._at]

    @property
    def next(self) -> Candidate | None:
        """Whoever would be tried next."""
        at = self._following()
        return self._candidates[at] if at is not None else None

    @property
    def at_the_end(self) -> bool:
        """Whether the plan has nobody after whoever was tried last, not even one who rests."""
        return self._at + 1 == len(self._candidates)

    def beside(self, now_us: int) -> Candidate | None:
        """The next attempt, while the last one has said nothing; None: there is none to be had."""
        at = self._following()
        if at is None or not self._budget.take(now_us):
            return None
        self._at = at
        self.number += 1
        return self._candidates[at]

    def _following(self) -> int | None:
        for at in range(self._at + 1, len(self._candidates)):
            if not self._rests(self._candidates[at]):
                return at
        return None

    def after(self, outcome: Outcome, now_us: int, *, first_byte_sent: bool) -> Candidate | None:
        """The next attempt, or None: the last outcome stands.

        `first_byte_sent`: whether the client has had any byte of an answer; then nothing follows.
        """
        if first_byte_sent or not outcome.provably_unprocessed:
            return None
        return self.beside(now_us)
