"""Calls that a program makes over and over: the same key, the same shape, and money every minute.

A shape is what can be said of a request without its content: the model, the kind of call, and about
how large its prompt is. Nothing that a client says of itself is part of it, so no tag hides a loop.
Amounts are integers of one unit, whichever, the same for all calls.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

MINUTE_US: Final = 60_000_000

_LEADING_BITS: Final = (
    3  # of a prompt's size: a conversation that grows keeps its shape for a while
)
_SHAPE_LENGTH: Final = 12
_ENCODER: Final = msgspec.json.Encoder()


class Call(msgspec.Struct, frozen=True):
    """One answered request; `at_us` is its end."""

    key_id: str
    shape: str
    at_us: int
    amount: int


class Loop(msgspec.Struct, frozen=True):
    """The dearest minute of one key's calls of one shape."""

    key_id: str
    shape: str
    requests: int
    amount: int
    start_us: int  # the end of the first of these calls
    end_us: int  # and of the last


def shape_of(model: str, operation: str, stream: bool, input_tokens: int) -> str:
    """The name of a shape. Sizes within about a fifth of each other are of one shape."""
    shift = max(0, input_tokens.bit_length() - _LEADING_BITS)
    facts = (model, operation, stream, shift, input_tokens >> shift)
    return hashlib.sha256(_ENCODER.encode(facts)).hexdigest()[:_SHAPE_LENGTH]


def loops(calls: Iterable[Call], least_requests: int, least_amount: int) -> tuple[Loop, ...]:
    """Of each key and shape the dearest minute, where that has as many requests and costs as much
    as this. In the order of keys and shapes, whatever that of the calls.
    """
    alike: dict[tuple[str, str], list[Call]] = {}
    for call in calls:
        alike.setdefault((call.key_id, call.shape), []).append(call)
    dearest = (_dearest(of, least_requests) for _, of in sorted(alike.items()))
    return tuple(each for each in dearest if each is not None and each.amount >= least_amount)


def _dearest(calls: Sequence[Call], least_requests: int) -> Loop | None:
    """Of the minutes with enough calls; the last of those that cost the same."""
    ordered = sorted(calls, key=lambda call: (call.at_us, call.amount))
    found: Loop | None = None
    first = amount = 0
    for number, call in enumerate(ordered):
        amount += call.amount
        while ordered[first].at_us <= call.at_us - MINUTE_US:
            amount -= ordered[first].amount
            first += 1
        requests = number - first + 1
        if requests >= least_requests and (found is None or amount >= found.amount):
            start_us = ordered[first].at_us
            found = Loop(call.key_id, call.shape, requests, amount, start_us, call.at_us)
    return found
