"""How many requests at a time a backend takes well: not configured, but found out.

Without trouble there is no limit. A refusal (429, 503) sets it to seven tenths of what was under
way; a time to first token that grows while much is under way lowers it by as much as it grew
(gradient of the long to the short average). Five seconds without trouble in which the limit was in
use add one; a limit that was not needed for a minute is gone. Time to first token and not the whole
answer's, which depends on how much was asked for.
"""

from typing import Final

import msgspec

TURN_US: Final = 1_000_000
LEAST: Final = 2  # a limit never closes a backend: that is the breaker's
BUSY: Final = 4  # under way before a slow answer is put down to crowding
TOLERANCE_PERCENT: Final = 150  # of the usual time before it counts as grown
CALM_TURNS: Final = 5  # without trouble, and the limit grows by one
_UNUSED_TURNS: Final = 60
_LONG_TURNS: Final = 60
_SAMPLES: Final = 3  # in a turn before its mean means anything


class Room(msgspec.Struct, frozen=True):
    """All there is to know of one backend's room. Times are microseconds of one clock."""

    limit: int | None = None  # None: no trouble so far
    turned_us: int = 0  # when the current turn began
    most: int = 0  # under way at once in this turn
    refused: bool = False  # in this turn
    total_us: int = 0  # of time to first token in this turn
    samples: int = 0
    usual_us: int = 0  # the long average; 0: not known
    unused: int = 0  # turns in a row in which the limit was not needed
    calm: int = 0  # turns without trouble in which it was, since it last grew


FREE: Final = Room()


def began(room: Room, in_flight: int) -> Room:
    """A request goes; `in_flight` counts it."""
    return msgspec.structs.replace(room, most=in_flight) if in_flight > room.most else room


def answered(room: Room, ttft_us: int) -> Room:
    """The first token came after so long."""
    return msgspec.structs.replace(room, total_us=room.total_us + ttft_us, samples=room.samples + 1)


def refused(room: Room, in_flight: int) -> Room:
    """The backend wants less than the `in_flight` it has. Counts once a turn: those refused
    together were refused for one reason.
    """
    if room.refused:
        return room
    least = min(in_flight, room.limit) if room.limit is not None else in_flight
    return msgspec.structs.replace(room, limit=max(LEAST, least * 7 // 10), refused=True, unused=0)


def turned(room: Room, in_flight: int, now_us: int) -> Room:
    """The room after a look at the turn, once it is over; before, as it was."""
    if now_us < room.turned_us + TURN_US:
        return room
    limit, unused, calm = room.limit, 0, 0
    percent = _percent_of_usual(room)
    if room.refused:
        pass
    elif percent > TOLERANCE_PERCENT and room.most >= BUSY:
        base = room.most if limit is None else min(limit, room.most)
        limit = max(LEAST, base * max(50, TOLERANCE_PERCENT * 100 // percent) // 100)
    elif limit is not None and room.most * 2 > limit:
        calm = room.calm + 1
        if calm >= CALM_TURNS:
            limit, calm = limit + 1, 0
    elif limit is not None:
        unused = room.unused + 1
        limit, unused = (None, 0) if unused >= _UNUSED_TURNS else (limit, unused)
    return Room(limit, now_us, in_flight, usual_us=_usual_us(room), unused=unused, calm=calm)


def _percent_of_usual(room: Room) -> int:
    if room.samples < _SAMPLES or not room.usual_us:
        return 100
    return room.total_us // room.samples * 100 // room.usual_us


def _usual_us(room: Room) -> int:
    if room.samples < _SAMPLES:
        return room.usual_us
    mean_us = room.total_us // room.samples
    if not room.usual_us:
        return mean_us
    if mean_us * 2 < room.usual_us:  # it was taken for slow and is not: believed at once
        return room.usual_us * 95 // 100
    return room.usual_us + (mean_us - room.usual_us) // _LONG_TURNS
