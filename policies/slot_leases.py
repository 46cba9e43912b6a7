"""A backend's slots lent to workers: the executable model of share.lua.

Each worker says how many of its slots are busy, what waits with it and how many it would like to
have ahead of need; it is lent so many that all workers together do not have more than the capacity.
Where somebody else waits it gets none ahead of need, and none for whom the other would be served
before: slots go to where the next in turn waits. What a dead worker had comes free at its expiry.
The counters of the fair queue are added up here, too.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Final

import msgspec

from policies.fair_queue import Line

Head = tuple[int, int, int]  # of a request that waits: its priority, its counter, since when in ms

FRESH_MS: Final = 300  # who has not asked for so long does not stand in anybody's way
IDLE_MS: Final = 2_000  # a line that nobody spoke of for so long begins anew at the floor
KEPT_MS: Final = 600_000  # after which a counter is forgotten
QUANTUM: Final = 2_000  # weighted tokens: counters this close are as good as equal,
PATIENCE_MS: Final = 50  # and then whoever waits longer by this goes first
NOBODY: Final[Head] = (0, 0, 0)  # no priority is below 1


class SlotsAsked(msgspec.Struct, frozen=True, array_like=True):
    """`kept`: what the worker goes on with while it waits for the answer, at least what is `busy`.
    `heads`: the first of what waits, in order, each with the milliseconds it has waited; `lines`:
    priority, team and the tokens charged since the last time. `ttl_ms` 0 gives everything back.
    """

    backend_id: str
    worker: str
    ttl_ms: int
    capacity: int
    kept: int
    busy: int
    spare: int
    waiting: int
    heads: tuple[Head, ...] = ()
    floors: tuple[tuple[int, int], ...] = ()
    lines: tuple[tuple[int, str, int], ...] = ()


class Shared(msgspec.Struct, frozen=True):
    """What the caller has now, and how it stands with the others."""

    slots: int
    rank: int  # of its name among those of the workers that live
    workers: int  # that live, the caller among them
    idle: int  # slots of others with no request in them
    waiting: int  # requests with others
    rival: Head  # the one of them that is next, with how long it has waited; NOBODY
    counters: tuple[int, ...]  # of the lines asked about


class Holder(msgspec.Struct, frozen=True):
    """What one worker has and what it last said."""

    slots: int
    expiry_ms: int
    seen_ms: int
    busy: int
    waiting: int
    head: Head


class Crew(msgspec.Struct, frozen=True):
    """All that is kept of one backend."""

    holders: Mapping[str, Holder] = {}
    counters: Mapping[Line, tuple[int, int]] = {}  # with when they were last spoken of, in ms
    floors: Mapping[int, int] = {}


def behind(mine: Head, other: Head) -> bool:
    """Whether `mine` has to let `other`, of another worker, go first. Of two, one
    never is behind the other, so that a free slot is always somebody's.
    """
    if mine[0] != other[0]:
        return mine[0] < other[0]
    if abs(mine[1] - other[1]) > QUANTUM:
        return mine[1] > other[1]
    return mine[2] > other[2] + PATIENCE_MS


def share(crew: Crew, asked: SlotsAsked, now_us: int) -> tuple[Crew, Shared]:
    """One step: what the worker has said is noted, and it has so many slots until `ttl_ms` from
    now. Never fewer than it keeps.
    """
    now_ms = now_us // 1000
    living = {
        name: each
        for name, each in crew.holders.items()
        if each.expiry_ms > now_ms and name != asked.worker
    }
    rival = _first_of(living, now_ms)
    free = asked.capacity - sum(each.slots for each in living.values())
    heads = [(priority, counter, now_ms - waited) for priority, counter, waited in asked.heads]
    wanted = asked.busy + _entitled(heads, asked.spare, rival)
    slots = max(asked.kept, min(free, wanted)) if asked.ttl_ms else 0
    holders = dict(living)
    if asked.ttl_ms:
        head = heads[0] if heads else NOBODY
        expiry_ms = now_ms + asked.ttl_ms
        holders[asked.worker] = Holder(slots, expiry_ms, now_ms, asked.busy, asked.waiting, head)
    counted, counters = _counted(crew, asked, now_ms)
    floors = dict(crew.floors)
    for priority, floor in asked.floors:
        floors[priority] = max(floors.get(priority, 0), floor)
    told = Shared(
        slots=slots,
        rank=sum(name < asked.worker for name in living),
        workers=len(living) + 1,
        idle=sum(max(0, each.slots - each.busy) for each in living.values()),
        waiting=sum(each.waiting for each in living.values()),
        rival=rival if rival == NOBODY else (*rival[:2], now_ms - rival[2]),
        counters=counters,
    )
    return Crew(holders, counted, floors), told


def _first_of(living: Mapping[str, Holder], now_ms: int) -> Head:
    waiting = [
        each.head
        for each in living.values()
        if each.head != NOBODY and each.seen_ms > now_ms - FRESH_MS
    ]
    if not waiting:
        return NOBODY
    first = min(waiting, key=lambda head: (-head[0], head[1]))
    as_good = [each for each in waiting if each[0] == first[0] and each[1] <= first[1] + QUANTUM]
    return min(as_good, key=lambda head: (head[2], head[1]))


def _entitled(heads: Sequence[Head], spare: int, rival: Head) -> int:
    if rival == NOBODY:
        return len(heads) + spare
    return sum(1 for _ in takewhile(lambda head: not behind(head, rival), heads))


def _counted(
    crew: Crew, asked: SlotsAsked, now_ms: int
) -> tuple[dict[Line, tuple[int, int]], tuple[int, ...]]:
    counted = {line: one for line, one in crew.counters.items() if one[1] + KEPT_MS > now_ms}
    answer = []
    for priority, team, tokens in asked.lines:
        at, seen_ms = counted.get((priority, team), (0, 0))
        if seen_ms <= now_ms - IDLE_MS:
            at = max(at, crew.floors.get(priority, 0))
        at = max(0, at + tokens)
        counted[(priority, team)] = (at, now_ms)
        answer.append(at)
    return counted, tuple(answer)
