"""What a box was seen to do, minute by minute: how long it was busy, and with which tokens.

A box is busy while it has at least one request; what runs beside another counts once. Tokens fall
evenly over the time they took: the prompt's until the first of the answer came, the answer's from
there to the end. What is cut by a minute's edge is shared so that nothing is lost or made up.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

MINUTE_US: Final = 60_000_000


class Work(msgspec.Struct, frozen=True):
    """One attempt at the box. `content_us`: when the first of its answer came; its end, where none
    did.
    """

    started_us: int
    content_us: int
    ended_us: int
    prefilled: int  # tokens of the prompt that no cache had
    cached: int
    decoded: int


class Minute(msgspec.Struct, frozen=True):
    """`in_flight_us`: the time of all its requests together; over `busy_us` it is how many at once.
    `requests` began in it.
    """

    at_us: int
    busy_us: int
    in_flight_us: int
    prefilled: int
    cached: int
    decoded: int
    requests: int


_BUSY, _IN_FLIGHT, _PREFILLED, _CACHED, _DECODED, _REQUESTS = range(6)


def minutes(works: Iterable[Work], from_us: int, to_us: int) -> tuple[Minute, ...]:
    """Those from `from_us` up to, not including, `to_us` in which anything was done; of both only
    whole minutes. `works` in the order in which they started.
    """
    from_us += -from_us % MINUTE_US
    to_us -= to_us % MINUTE_US
    found: dict[int, list[int]] = {}
    covered = from_us
    for work in works:
        if work.ended_us <= work.started_us:
            continue
        spans = (
            (_BUSY, max(covered, work.started_us), work.ended_us, None),
            (_IN_FLIGHT, work.started_us, work.ended_us, None),
            (_PREFILLED, work.started_us, work.content_us, work.prefilled),
            (_CACHED, work.started_us, work.content_us, work.cached),
            (_DECODED, work.content_us, work.ended_us, work.decoded),
            (_REQUESTS, work.started_us, work.started_us, 1),
        )
        for what, start_us, end_us, amount in spans:
            for minute, part in _shares(start_us, end_us, amount):
                if from_us <= minute < to_us:
                    found.setdefault(minute, [0] * 6)[what] += part
        covered = max(covered, work.ended_us)
    return tuple(Minute(at_us, *figures) for at_us, figures in sorted(found.items()))


def _shares(start_us: int, end_us: int, amount: int | None) -> Iterator[tuple[int, int]]:
    """By minute, an amount over a span; without one its microseconds. What takes no time falls into
    the minute of its start.
    """
    if end_us <= start_us:
        if amount:
            yield start_us - start_us % MINUTE_US, amount
        return
    total, given, at_us = end_us - start_us if amount is None else amount, 0, start_us
    while at_us < end_us:
        minute = at_us - at_us % MINUTE_US
        at_us = min(end_us, minute + MINUTE_US)
        until = total * (at_us - start_us) // (end_us - start_us)
        yield minute, until - given
        given = until
