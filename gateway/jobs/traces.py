"""What the spools of this home say of certain holds."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import msgspec

from billing.usage import DECODER, UsageEvent
from gateway.stores import spooled
from gateway.stores.spool import Outcome, Record


class Trace(msgspec.Struct, frozen=True):
    """One hold in one spool. `outcomes` are of the attempts that ended, in order; `is_open`: the
    spool knows no end of it.
    """

    writer_lives: bool
    is_open: bool
    outcomes: tuple[UsageEvent, ...]


class Traces(msgspec.Struct, frozen=True):
    """`living` are the names of the writers that run. `proving` are those, dead or alive, whose
    silence on a hold means that nothing of it was sent anywhere.
    """

    of: Mapping[str, Trace] = {}
    living: frozenset[str] = frozenset()
    proving: frozenset[str] = frozenset()


def traces(directory: Path, hold_ids: Collection[str]) -> Traces:
    """Reads every spool under `directory`. Of a hold in several the last word counts."""
    wanted = set(hold_ids)
    found: dict[str, Trace] = {}
    living: set[str] = set()
    proving: set[str] = set()
    for writer in spooled.writers(directory):
        # Asked before it is read: a writer that dies meanwhile is still its own to look after.
        lives = spooled.is_alive(writer)
        if lives:
            living.add(writer.name)
        try:
            found |= told(spooled.read(writer), wanted, writer_lives=lives)
        except FileNotFoundError:
            continue  # a segment was acknowledged, or the spool replayed, under our eyes
        if spooled.proves_absence(writer):
            proving.add(writer.name)
    return Traces(found, frozenset(living), frozenset(proving))


def told(
    spoken: Iterable[Record], wanted: Collection[str], *, writer_lives: bool
) -> dict[str, Trace]:
    """What the records of one spool say of the holds that are `wanted`."""
    records = [record for record in spoken if record.hold_id in wanted]
    still_open = spooled.open_requests(records)
    outcomes: dict[str, list[UsageEvent]] = {record.hold_id: [] for record in records}
    for record in records:
        if isinstance(record, Outcome):
            outcomes[record.hold_id].append(DECODER.decode(record.event))
    return {
        hold_id: Trace(writer_lives, hold_id in still_open, tuple(events))
        for hold_id, events in outcomes.items()
    }
