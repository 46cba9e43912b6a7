"""Journal entries into the ledger: all that it takes are booked, what it refuses is told apart."""

import logging
from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError

from billing.usage import DECODER, Cards, UsageEvent
from gateway import clock
from gateway.stores.redis.journal import Entry
from gateway.stores.redis.refused import Refused
from gateway.stores.sql import decisions, usage
from policies.facts import RECORDS, Record, digest_of

_LOG: Final = logging.getLogger(__name__)
# What an event itself is to blame for. Any other error of the database is the database's, and the
# entry stays where it is until that is mended.
_ITS_OWN_FAULT: Final = (ValueError, OverflowError, DataError, IntegrityError)

# Clocks of one installation differ by less. What is dated further ahead was dated by a wrong one.
MOST_AHEAD_US: Final = 600_000_000

_Read = tuple[Entry, UsageEvent]


def book(engine: Engine, tag: str, entries: Sequence[Entry]) -> tuple[int, list[Refused]]:
    """How many rows are new, and the entries that cannot become one, with the reason: never, or not
    before the time that they are dated. The decisions are sealed into the chain of `tag`.

    Every other entry is in the ledger when this returns. Raises what the database raises when it
    is out of reach: then some of the entries may be booked, and booking them again is harmless.
    """
    read: list[_Read] = []
    refused: list[Refused] = []
    latest_us = clock.now_us() + MOST_AHEAD_US
    _seal(engine, tag, [entry for entry in entries if not entry.event])
    cards = Cards()
    for entry in entries:
        if not entry.event:
            continue
        try:
            event = DECODER.decode(entry.event)
        except (msgspec.DecodeError, ValueError) as fault:
            refused.append(_refused(entry, entry.id.decode(), f"not a usage event: {fault}"))
            continue
        if event.admitted_at_us > latest_us:
            refused.append(_early(entry, event))
        else:
            cards.share(event)
            read.append((entry, event))
    return _book(engine, tag, read, refused), refused


def _seal(engine: Engine, tag: str, refusals: Sequence[Entry]) -> None:
    """Decisions on refused requests. One that cannot be read is left out: no money hangs on it."""
    records: list[Record] = []
    for entry in refusals:
        try:
            records.append(RECORDS.decode(entry.decision))
        except msgspec.DecodeError as fault:
            _LOG.error("a decision in the journal cannot be read: %s", fault)
    if records:
        told = {digest_of(each.standing): each.standing for each in refusals if each.standing}
        decisions.add_alone(engine, tag, records, told, clock.now_us())


def _book(engine: Engine, tag: str, read: Sequence[_Read], refused: list[Refused]) -> int:
    """All at once; halves of it when something in it is unfit, down to the one that is."""
    if not read:
        return 0
    try:
        return usage.record(engine, [(event, entry.hold_found) for entry, event in read], tag)
    except _ITS_OWN_FAULT as fault:
        if len(read) == 1:
            entry, event = read[0]
            refused.append(_refused(entry, event.event_id, f"{type(fault).__name__}: {fault}"))
            return 0
    middle = len(read) // 2
    return _book(engine, tag, read[:middle], refused) + _book(engine, tag, read[middle:], refused)


def _early(entry: Entry, event: UsageEvent) -> Refused:
    reason = (
        f"it is dated {clock.rfc3339(event.admitted_at_us)}, more than ten minutes ahead: look at "
        "the clock of the worker that served it; it is booked when that time has come"
    )
    early = _refused(entry, event.event_id, reason)
    return msgspec.structs.replace(early, again_us=event.admitted_at_us)


def _refused(entry: Entry, id_: str, reason: str) -> Refused:
    return Refused(id_, entry.event, entry.hold_found, reason[:500], clock.now_us())
