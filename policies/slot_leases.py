"""A backend's slots lent to workers: the executable model of share.lua.

Each worker says how many of its slots are busy, what waits with it and how many it would like to
have ahead of need; it is lent so many that all workers together do not have more than the capacity.
Where somebody else waits it gets none ahead of need, and none for whom the other would be served
before: slots go to where the next in turn waits. What a dead worker had comes free at its expiry.
The counters of the fair queue are added up here, too.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from policies.fair_queue import Line, charged

Said = tuple[int, int, int, str]  # of what waits: priority, counter, since when in ms, team
Head = tuple[int, int, int, str, int]  # that, and how far it may be ahead: `slack`
Rival = tuple[int, int]  # of what waits elsewhere: the highest priority, the lowest counter there

FRESH_MS: Final = 300  # who has not asked for so long does not stand in anybody's way
IDLE_MS: Final = 2_000  # a line that nobody spoke of for so long begins anew at the floor
KEPT_MS: Final = 600_000  # after which a counter is forgotten
QUANTUM: Final = 2_000  # weighted tokens that a team may have had more than its share,
PATIENCE_MS: Final = 50  # and within a line whoever waits longer by this goes first
NOBODY: Final[Rival] = (0, 0)  # no priority is below 1


class SlotsAsked(msgspec.Struct, frozen=True, array_like=True):
    """`kept`: what the worker goes on with while it waits for the answer, at least what is `busy`.
    `heads`: the first of what waits, in order, each with the milliseconds it has waited; `lines`:
    priority, team and what was charged since the last time. `ttl_ms` 0 gives everything back.
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
    rival: Rival  # what they have to be let go first for; NOBODY
    counters: tuple[int, ...]  # of the lines asked about,
    elders: tuple[int, ...]  # and for how many ms the oldest of each line waits elsewhere; 0: none


class Holder(msgspec.Struct, frozen=True):
    """What one worker has and what it last said."""

    slots: int
    expiry_ms: int
    seen_ms: int
    busy: int
    waiting: int
    heads: tuple[Said, ...]  # the oldest of each line


class Crew(msgspec.Struct, frozen=True):
    """All that is kept of one backend."""

    holders: Mapping[str, Holder] = {}
    counters: Mapping[Line, tuple[int, int]] = {}  # with when they were last spoken of, in ms
    floors: Mapping[int, int] = {}


def slack(weight: int) -> int:
    """How far the counter of a team of this weight may be ahead before it lets others go first. The
    same number of tokens for each: those of a team that weighs much move its counter little, and
    with the same slack for all it would keep others waiting for so many more.
    """
    return charged(QUANTUM, weight)


def behind(mine: Head, rival: Rival, elder_ms: int | None) -> bool:
    """Whether `mine` has to let others, of other workers, go first: a higher priority, a team that
    had fewer tokens, or its own line where that has waited longer, since `elder_ms`. Of all that is
    next anywhere one is behind nobody, so that a free slot is always somebody's: the oldest of the
    line with the lowest counter.
    """
    priority, counter, since_ms, _team, ahead = mine
    if priority != rival[0]:
        return priority < rival[0]
    if counter > rival[1] + ahead:
        return True
    return elder_ms is not None and since_ms > elder_ms + PATIENCE_MS


def oldest(heads: Iterable[Said]) -> dict[Line, Said]:
    """Of each line. They come in the order in which they are served, and so of their arrival."""
    found: dict[Line, Said] = {}
    for head in heads:
        line = (head[0], head[3])
        if line not in found or head[2] < found[line][2]:
            found[line] = head
    return found


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
    others = [
        head for each in living.values() if each.seen_ms > now_ms - FRESH_MS for head in each.heads
    ]
    rival, elders = _first_of(others), oldest(others)
    free = asked.capacity - sum(each.slots for each in living.values())
    heads = [
        (priority, counter, now_ms - waited, team, ahead)
        for priority, counter, waited, team, ahead in asked.heads
    ]
    wanted = asked.busy + _entitled(heads, asked.spare, rival, elders)
    slots = max(asked.kept, min(free, wanted)) if asked.ttl_ms else 0
    holders = dict(living)
    if asked.ttl_ms:
        expiry_ms = now_ms + asked.ttl_ms
        firsts = tuple(oldest(head[:4] for head in heads).values())
        holders[asked.worker] = Holder(slots, expiry_ms, now_ms, asked.busy, asked.waiting, firsts)
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
        rival=rival,
        counters=counters,
        elders=tuple(
            max(1, now_ms - elders[priority, team][2]) if (priority, team) in elders else 0
            for priority, team, _ in asked.lines
        ),
    )
    return Crew(holders, counted, floors), told


def _first_of(others: Sequence[Said]) -> Rival:
    if not others:
        return NOBODY
    priority = max(head[0] for head in others)
    return priority, min(head[1] for head in others if head[0] == priority)


def _entitled(heads: Sequence[Head], spare: int, rival: Rival, elders: Mapping[Line, Said]) -> int:
    if rival == NOBODY:
        return len(heads) + spare
    count = 0
    for head in heads:
        elder = elders.get((head[0], head[3]))
        if behind(head, rival, elder[2] if elder else None):
            break
        count += 1
    return count


def _counted(
    crew: Crew, asked: SlotsAsked, now_ms: int
) -> tuple[dict[Line, tuple[int, int]], tuple[int, ...]]:
    counted = {line: one for line, one in crew.counters.items() if one[1] + KEPT_MS > now_ms}
    answer = []
    for priority, team, charge in asked.lines:
        at, seen_ms = counted.get((priority, team), (0, 0))
        if seen_ms <= now_ms - IDLE_MS:
            at = max(at, crew.floors.get(priority, 0))
        at = max(0, at + charge)
        counted[(priority, team)] = (at, now_ms)
        answer.append(at)
    return counted, tuple(answer)
