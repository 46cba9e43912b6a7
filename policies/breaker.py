"""Circuit breaker: when a backend is left alone and when it is tried again. Pure transitions.

closed --5 failures in a row, or half of at least 20 in ten seconds--> open
open --its time is over--> half open: one request at a time may probe
half open --success--> closed; --failure--> open for twice as long, at most twelve seconds: one
probe in that time is a small price for noticing soon that a backend is well again

Failures are the backend's: no connection, a timeout, a cut stream, 5xx. A client's error or a
client that hangs up says nothing about the backend: `released`.
"""

from enum import StrEnum
from typing import Final

import msgspec

CONSECUTIVE: Final = 5
SHARE_WINDOW_US: Final = 10_000_000
SHARE_LEAST: Final = 20  # outcomes in the window before a share means anything
OPEN_US: Final = 5_000_000
MAX_OPEN_US: Final = 12_000_000
PROBE_US: Final = 10_000_000  # a probe that never reports frees its place after this


class State(StrEnum):
    """What a breaker lets through: everything, nothing, one probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


# Python looks a member up the slow way each time it is named, and these are for every request.
_CLOSED: Final = State.CLOSED
_OPEN: Final = State.OPEN
_HALF_OPEN: Final = State.HALF_OPEN


class Breaker(msgspec.Struct, frozen=True):
    """All there is to know of one breaker. Times are microseconds of one clock."""

    consecutive: int = 0  # failures in a row
    window_from_us: int = 0
    window_outcomes: int = 0
    window_failures: int = 0
    opened_at_us: int | None = None  # None: closed
    open_for_us: int = OPEN_US
    probe_at_us: int | None = None  # when the probe under way began


CLOSED: Final = Breaker()


def state(breaker: Breaker, now_us: int) -> State:
    """The state at an instant; an open breaker becomes half open by the passing of time alone."""
    if breaker.opened_at_us is None:
        return _CLOSED
    over = breaker.opened_at_us + breaker.open_for_us
    return _OPEN if now_us < over else _HALF_OPEN


def allows(breaker: Breaker, now_us: int) -> bool:
    """Whether a request may go: closed, or half open with no probe under way."""
    if breaker.opened_at_us is None:
        return True
    if now_us < breaker.opened_at_us + breaker.open_for_us:
        return False
    return breaker.probe_at_us is None or now_us >= breaker.probe_at_us + PROBE_US


def began(breaker: Breaker, now_us: int) -> Breaker:
    """A request goes. Half open, it is the probe."""
    if state(breaker, now_us) is not _HALF_OPEN:
        return breaker
    return msgspec.structs.replace(breaker, probe_at_us=now_us)


def succeeded(breaker: Breaker, now_us: int) -> Breaker:
    """The backend answered as it should. Half open, it closes and its record is wiped.

    While it is open, an answer to a request from before changes nothing: the failures were later.
    """
    stands = state(breaker, now_us)
    if stands is _OPEN:
        return breaker
    if stands is _HALF_OPEN:
        return Breaker(window_from_us=now_us)
    return _counted(breaker, now_us, failed=False)


def failed(breaker: Breaker, now_us: int) -> Breaker:
    """The backend failed."""
    match state(breaker, now_us):
        case State.OPEN:
            return breaker  # one of those that were under way when it opened
        case State.HALF_OPEN:
            longer = min(breaker.open_for_us * 2, MAX_OPEN_US)
            return Breaker(opened_at_us=now_us, open_for_us=longer)
    counted = _counted(breaker, now_us, failed=True)
    return Breaker(opened_at_us=now_us) if _is_bad(counted) else counted


def released(breaker: Breaker, now_us: int) -> Breaker:
    """The request ended without a word about the backend; a probe gives its place back."""
    if breaker.probe_at_us is None or state(breaker, now_us) is not State.HALF_OPEN:
        return breaker
    return msgspec.structs.replace(breaker, probe_at_us=None)


def _counted(breaker: Breaker, now_us: int, *, failed: bool) -> Breaker:
    fresh = now_us >= breaker.window_from_us + SHARE_WINDOW_US
    return Breaker(
        consecutive=breaker.consecutive + 1 if failed else 0,
        window_from_us=now_us if fresh else breaker.window_from_us,
        window_outcomes=1 if fresh else breaker.window_outcomes + 1,
        window_failures=int(failed) if fresh else breaker.window_failures + failed,
    )


def _is_bad(breaker: Breaker) -> bool:
    return breaker.consecutive >= CONSECUTIVE or (
        breaker.window_outcomes >= SHARE_LEAST
        and breaker.window_failures * 2 >= breaker.window_outcomes
    )
