"""What a backend's `Keep-Alive` header promises: for how long, and for how many requests."""

import math
from typing import Final

import msgspec

_LONGEST_NUMBER: Final = 9
_SHARE: Final = 0.8  # of the time told: its clock began before ours


class KeepAlive(msgspec.Struct, frozen=True):
    """A connection may be idle for `idle_s` and carry `more` requests after the first answer."""

    idle_s: float = math.inf
    more: float = math.inf


def parse(value: bytes) -> KeepAlive:
    """What cannot be read is no promise. `max` is taken both as the number of requests that may
    follow and as that of all on the connection, because backends mean either: the smaller counts.
    """
    idle_s = more = math.inf
    for parameter in value.split(b","):
        name, _, figure = parameter.partition(b"=")
        figure = figure.strip(b' \t"')
        if not figure.isdigit() or len(figure) > _LONGEST_NUMBER:
            continue
        match name.strip().lower():
            case b"timeout":
                idle_s = min(idle_s, int(figure) * _SHARE)
            case b"max":
                more = min(more, max(0, int(figure) - 1))
    return KeepAlive(idle_s, 0 if idle_s == 0 else more)
