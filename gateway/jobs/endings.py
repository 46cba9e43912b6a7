"""How an overdue hold ends: by the best evidence there is, and by an estimate where there is none.

L10: what may have been sent is charged its input; what provably was not is released. In the order
of their strength: a spool of this home, the ledger and the journal, the silence of the spool that
would know, nothing.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from billing.usage import DECODER, ENCODER, UsageEvent
from gateway.jobs.estimates import without_evidence
from gateway.jobs.traces import Trace, Traces
from policies.budgets import Hold, Reaping, Settlement


class Ending(msgspec.Struct, frozen=True):
    """What is posted in the hold's place. `event` is what the ledger has yet to be told."""

    why: str
    money: int = 0
    tokens: int = 0
    event: UsageEvent | None = None


NEVER_SENT: Final = Ending("it was never sent anywhere")
UNBILLABLE: Final = Ending("nothing says what it was for")


def ending(hold: Hold, seen: Traces, booked: Mapping[str, tuple[int, int]]) -> Ending | None:
    """None: somebody else is there to end it, so it is left alone.

    `booked` has what the ledger and the journal count for the requests that they know.
    """
    hold_id, owner = hold.admission.hold_id, hold.admission.owner
    trace = seen.of.get(hold_id)
    if trace is not None:
        return _of_trace(trace)
    if hold_id in booked:
        money, tokens = booked[hold_id]
        return Ending("it is in the ledger", money, tokens)
    if owner in seen.proving:
        return NEVER_SENT
    if owner in seen.living:
        return None  # its spool is being written to while we read: look again
    return _estimate(hold)


def settlement(hold_id: str, one: Ending, reaping: Reaping) -> Settlement:
    """The ending, as the store is told it."""
    event = None if one.event is None else ENCODER.encode(one.event)
    never = one is NEVER_SENT  # so whoever repeats its idempotency key is served
    return Settlement(hold_id, one.money, one.tokens, (), event, reaping, never)


def _of_trace(trace: Trace) -> Ending | None:
    """Of a dead writer the replay hands everything in; an open request is its living writer's."""
    if not trace.writer_lives or trace.is_open:
        return None
    if not trace.outcomes:
        return NEVER_SENT
    closing = next((event for event in trace.outcomes if event.winner), trace.outcomes[-1])
    tokens = closing.usage.total if closing.winner else 0
    return Ending("its worker knows its end", closing.counter_nanos, tokens, closing)


def _estimate(hold: Hold) -> Ending:
    try:
        template = DECODER.decode(hold.admission.meta)
    except msgspec.DecodeError:
        return UNBILLABLE
    at_us = hold.admitted_at_ms * 1000  # by the store's clock, which chose the hold's windows
    event = without_evidence(msgspec.structs.replace(template, admitted_at_us=at_us))
    return Ending("nothing is left of it", event.counter_nanos, event.usage.total, event)
