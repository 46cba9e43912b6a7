"""Whose trace a request belongs to, and whether we keep it. Decided before anything is sent."""

import re
from random import Random
from typing import Final

from gateway.telemetry.record import TraceIds

_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_SPANS_OF_A_REQUEST: Final = 1024  # ids kept free above the first one


def ratio_of(sampler: str, argument: str) -> float:
    """The share of requests to keep, from OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG.

    The `parentbased_` forms mean the same as the plain ones here: a caller's sampled flag would let
    tenants decide how much we store. ValueError names what is wrong.
    """
    match sampler.removeprefix("parentbased_"):
        case "always_on":
            return 1.0
        case "always_off":
            return 0.0
        case "" | "traceidratio":
            ratio = float(argument or "0.1")
            if not 0.0 <= ratio <= 1.0:
                raise ValueError(f"OTEL_TRACES_SAMPLER_ARG is {argument}; it must be from 0 to 1")
            return ratio
        case _:
            raise ValueError(f"OTEL_TRACES_SAMPLER {sampler!r} is not known; use traceidratio")


def parent_of(traceparent: bytes) -> tuple[int, int] | None:
    """(trace id, span id) of a valid W3C header, else None. Later versions may be longer."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[4] is not None):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    return (trace_id, span_id) if trace_id and span_id else None


class Sampler:
    """Hands out ids. The draw is our own, not the trace id's: a caller chooses that one."""

    def __init__(self, ratio: float, random: Random) -> None:
        self._threshold = int(ratio * (1 << 32))
        self._bits = random.getrandbits

    def ids(self, traceparent: bytes | None) -> TraceIds:
        bits = self._bits(224)
        span_id = ((bits >> 128) & 0xFFFF_FFFF_FFFF_FFFF) % _HIGHEST_SPAN_ID + 1
        sampled = bits >> 192 < self._threshold
        parent = parent_of(traceparent) if traceparent else None
        if parent is None:
            return TraceIds(bits & _TRACE_MASK or 1, span_id, 0, sampled)
        return TraceIds(parent[0], span_id, parent[1], sampled)


_TRACE_MASK: Final = (1 << 128) - 1
_HIGHEST_SPAN_ID: Final = (1 << 64) - _SPANS_OF_A_REQUEST
