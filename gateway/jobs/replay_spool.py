"""Spools of dead workers of this machine -> journal and ledger; then the spool may go.

Nothing is booked from here: outcomes go through settle.lua once more, which moves a counter only if
the hold is still there, and writes the journal entry that the ledger drains. A spool is discarded
when the ledger has all of its events, or they are set aside.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from billing.usage import ENCODER, UsageEvent
from gateway.clock import monotonic_us
from gateway.failpoints import failpoint
from gateway.jobs.deps import JobDeps
from gateway.jobs.evidence import HELD, Findings, findings, surroundings
from gateway.stores import spooled
from gateway.stores.redis import lending, quarantine, records
from gateway.stores.redis.holds import Settlement
from gateway.stores.redis.keys import DEFAULT_TAG
from gateway.stores.spool import Closed, Record
from gateway.stores.sql import usage
from gateway.stores.sql.corrections import is_weak
from policies.leases import TakenBack

SEND_AGAIN_US: Final = 60_000_000  # what the ledger still lacks then is sent once more
_AT_ONCE: Final = 64

_LOG: Final = logging.getLogger(__name__)


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """One look at every spool. Raises what the stores raise; nothing is lost by that."""
    writers = await asyncio.to_thread(spooled.writers, deps.spool_dir)
    for writer in writers:
        if stopping.is_set():
            return
        try:
            with spooled.adopted(writer):
                await _replay(deps, writer)
        except spooled.WriterAlive:
            continue
    for gone in deps.sent.keys() - {writer.name for writer in writers}:
        del deps.sent[gone]


async def _replay(deps: JobDeps, writer: Path) -> None:
    failpoint("replay.adopted")
    around = await asyncio.to_thread(surroundings, deps.engine)
    found = await asyncio.to_thread(findings, deps.engine, writer, around.places)
    sent = deps.sent.setdefault(writer.name, {})
    await _release(deps, found, sent)
    await _release_strays(deps, writer, {DEFAULT_TAG, *around.tags.values()})
    aside: set[str] = set()
    for tag in {DEFAULT_TAG, *around.tags.values()}:
        aside |= await quarantine.ids(deps.client, tag)
    held = [event for event in found.events if event.request_id not in found.unheld]
    ended = await _ended(deps, held, around.tags)
    waiting = [event for event in found.events if event.event_id not in aside | ended]
    if not waiting:
        if found.lost:
            _LOG.error("%s: %d holds without evidence", writer.name, len(found.lost))
        await _take_back(deps, writer, {DEFAULT_TAG, *around.tags.values()})
        failpoint("replay.booked")
        await asyncio.to_thread(spooled.discard, writer)
        failpoint("replay.discarded")
        _LOG.info("the spool %s is in the ledger and gone", writer.name)
        return
    due = [event for event in waiting if _is_due(sent.get(event.event_id))]
    if due:
        _LOG.info("%s: handing in %d events of a dead worker", writer.name, len(due))
    for start in range(0, len(due), _AT_ONCE):
        part = due[start : start + _AT_ONCE]
        await asyncio.gather(*(_settle(deps, event, found, around.tags) for event in part))
        sent.update({event.event_id: monotonic_us() for event in part})
        failpoint("replay.handed_in")


async def _ended(deps: JobDeps, events: Iterable[UsageEvent], tags: Mapping[str, str]) -> set[str]:
    """Weak estimates whose hold is gone: it was released, or ended by who knew more. They would
    charge what was never sent.
    """
    weak: dict[str, list[UsageEvent]] = {}
    for event in events:
        if is_weak(event):
            weak.setdefault(tags.get(event.tenant_id, DEFAULT_TAG), []).append(event)
    ended: set[str] = set()
    for tag, some in weak.items():
        holds = await records.all_of(deps.client, tag, [event.request_id for event in some])
        ended.update(event.event_id for event in some if event.request_id not in holds)
    return ended


async def _settle(
    deps: JobDeps, event: UsageEvent, found: Findings, tags: Mapping[str, str]
) -> None:
    tag = tags.get(event.tenant_id, DEFAULT_TAG)
    await deps.holds.settle(tag, handed_in(event, found))


def handed_in(event: UsageEvent, found: Findings) -> Settlement:
    """What the store is told of an event. One that closes its request ends the hold, or is posted
    on the accounts beside where there never was one.
    """
    closes = event.event_id in found.closing
    unheld = found.unheld.get(event.request_id, HELD) if closes else HELD
    return Settlement(
        # No hold bears an event's id: then only the journal entry is written.
        hold_id=event.request_id if closes else event.event_id,
        money=event.counter_nanos if closes else 0,
        tokens=event.usage.total if closes and event.winner else 0,
        event=ENCODER.encode(event),
        unheld=unheld.accounts,
        leases=unheld.leases,
    )


async def _release(deps: JobDeps, found: Findings, sent: dict[str, int]) -> None:
    """Releasing a hold twice is releasing it once, so forgetting what was sent does no harm."""
    for tag, hold_id in found.untouched:
        if hold_id not in sent:
            await deps.holds.release(tag, hold_id)
            sent[hold_id] = monotonic_us()


async def _release_strays(deps: JobDeps, writer: Path, tags: Collection[str]) -> None:
    """Holds of this writer that led to nothing: it died before it could use them, or while it gave
    them back.
    """
    for tag in tags:
        holds = await records.all_of(deps.client, tag, await records.ids(deps.client, tag))
        owned = [id_ for id_, hold in holds.items() if hold.admission.owner == writer.name]
        if owned:
            known = await asyncio.to_thread(usage.ended, deps.engine, owned, ())
            for hold_id in await asyncio.to_thread(_unsent, writer, owned, known):
                await deps.holds.release(tag, hold_id)


def _unsent(writer: Path, owned: Collection[str], known: Collection[str]) -> set[str]:
    whole = spooled.proves_absence(writer)
    return unsent(spooled.read(writer), owned, known, proves_absence=whole)


def unsent(
    spoken: Iterable[Record],
    owned: Collection[str],
    known: Collection[str],
    *,
    proves_absence: bool,
) -> set[str]:
    """Of a dead writer's holds those that its records say were closed, and those that neither they
    nor the ledger, which has the `known`, have heard of. Where the records' silence proves nothing,
    the latter are for the reaper.
    """
    written: set[str] = set()
    closed: set[str] = set()
    for record in spoken:
        written.add(record.hold_id)
        if isinstance(record, Closed):
            closed.add(record.hold_id)
    wanted = closed.intersection(owned)
    if proves_absence:
        wanted.update(set(owned) - written - set(known))
    return wanted


async def _take_back(deps: JobDeps, writer: Path, tags: Collection[str]) -> None:
    """All that it spent of its leases is settled: the rest is nobody's any more."""
    for tag in tags:
        for lease in await lending.of_owner(deps.client, tag, writer.name):
            await deps.holds.taking_back(tag, TakenBack(lease.lease_id, lease.account))
            _LOG.info("%s: lease %s is ended", writer.name, lease.lease_id)


def _is_due(sent_us: int | None) -> bool:
    return sent_us is None or monotonic_us() - sent_us >= SEND_AGAIN_US
