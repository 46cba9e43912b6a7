"""Journal -> ledger: read, book in one transaction, only then acknowledge.

A crash between the two delivers entries again, and the ledger's unique event id makes that nothing.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Engine, select

from gateway import clock
from gateway.clock import monotonic_us
from gateway.failpoints import failpoint
from gateway.jobs.booking import book
from gateway.jobs.deps import JobDeps
from gateway.jobs.schedule import at_every_tag, pause
from gateway.stores.redis import keys, leases, quarantine
from gateway.stores.redis.journal import Entry, Journal
from gateway.stores.redis.keys import DEFAULT_TAG
from gateway.stores.sql.engine import reading
from gateway.stores.sql.tables import tenants

MOST_ENTRIES: Final = 2_000  # a transaction; more save nothing and keep other writers waiting
FEW_ENTRIES: Final = 250
PAUSE_S: Final = 0.2  # after few entries: a transaction for each request would only wear the disk
WAIT_MS: Final = 500
ASK_AGAIN_S: Final = 0.05
FAILED_PAUSE_S: Final = 1.0
TURN_US: Final = 4_000_000
ASIDE_EVERY_US: Final = 60_000_000  # what is set aside is looked through
LEASE_MS: Final = 8_000  # a turn and its last transaction; overrunning it is harmless

_LOG: Final = logging.getLogger(__name__)


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """One turn at every tag. Raises what the stores raise; entries read by then come again."""
    tags = await asyncio.to_thread(tags_of, deps.engine)

    async def turn(tag: str) -> None:
        try:
            await drain(deps, tag, stopping)
        except Exception:
            await pause(stopping, FAILED_PAUSE_S)  # the next turn comes at once
            raise

    await at_every_tag(tags, turn)


async def drain(deps: JobDeps, tag: str, stopping: asyncio.Event) -> int:
    """Entries of one tag for as long as a turn takes; when `stopping`, until there are none.
    Answers how many rows are new; 0 while another process has the lease.
    """
    lease = await _leased(deps, tag)
    while lease is None and stopping.is_set() and await _waits(deps, tag):
        # Nobody may have it but a store that was away when it was to be given back.
        await asyncio.sleep(ASK_AGAIN_S)
        lease = await _leased(deps, tag)
    if lease is None:
        await pause(stopping, ASK_AGAIN_S)
        return 0
    try:
        return await _turn(deps, tag, stopping)
    finally:
        await leases.give_back(deps.client, lease)


async def _leased(deps: JobDeps, tag: str) -> leases.Lease | None:
    if await leases.is_held(deps.client, keys.still(tag)):
        return None
    return await leases.take(deps.client, keys.drain(tag), LEASE_MS)


async def _waits(deps: JobDeps, tag: str) -> bool:
    return await Journal(deps.client, tag, deps.name).length() > 0


async def _turn(deps: JobDeps, tag: str, stopping: asyncio.Event) -> int:
    journal = Journal(deps.client, tag, deps.name)
    # With the lease in hand, whatever was read and not finished is an orphan: of a process that
    # died, or of a transaction that failed.
    booked = 0
    while orphans := await journal.reclaim(MOST_ENTRIES, idle_ms=0):
        booked += await _book(deps, tag, journal, orphans)
    booked += await _take_up(deps, tag)
    end_us = monotonic_us() + TURN_US
    while monotonic_us() < end_us:
        if await leases.is_held(deps.client, keys.still(tag)):
            break  # a recount compares the journal with the ledger
        entries = await journal.take(MOST_ENTRIES, 0 if stopping.is_set() else WAIT_MS)
        few = len(entries) < FEW_ENTRIES
        while entries:
            # The next are read while these are written: the two servers work side by side.
            async with asyncio.TaskGroup() as both:
                writing = both.create_task(_book(deps, tag, journal, entries))
                ahead = both.create_task(_more(journal, entries, end_us))
            booked += writing.result()
            entries = ahead.result()
        if stopping.is_set():
            break
        if few:
            await pause(stopping, PAUSE_S)
    return booked


async def _take_up(deps: JobDeps, tag: str) -> int:
    """Of what was set aside as dated ahead of our clock, that whose time has come."""
    before_us, at_us = deps.looked_aside.get(tag), monotonic_us()
    if before_us is not None and at_us - before_us < ASIDE_EVERY_US:
        return 0
    deps.looked_aside[tag] = at_us
    aside, now_us = await quarantine.read(deps.client, tag), clock.now_us()
    due = [each for each in aside.values() if 0 < each.again_us <= now_us][:MOST_ENTRIES]
    if not due:
        return 0
    entries = [Entry(each.id.encode(), each.event, each.hold_found) for each in due]
    booked, refused = await asyncio.to_thread(book, deps.engine, tag, entries)
    await quarantine.taken_up(deps.client, tag, [each.id for each in due], refused)
    return booked


async def _more(journal: Journal, entries: Sequence[Entry], end_us: int) -> tuple[Entry, ...]:
    """The next entries, unless these were the last ones or the turn is over."""
    if len(entries) < MOST_ENTRIES or monotonic_us() > end_us:
        return ()
    return await journal.take(MOST_ENTRIES)


def tags_of(engine: Engine) -> tuple[str, ...]:
    """Every tag that a tenant has, and the one that a single server has."""
    with reading(engine) as connection:
        found = connection.scalars(select(tenants.c.shard).distinct())
        return tuple(sorted({DEFAULT_TAG, *found}))


async def _book(deps: JobDeps, tag: str, journal: Journal, entries: Sequence[Entry]) -> int:
    if not entries:
        return 0
    failpoint("drain.taken")
    booked, refused = await asyncio.to_thread(book, deps.engine, tag, entries)
    if refused:
        await quarantine.set_aside(deps.client, tag, refused)
        for each in refused:
            _LOG.error("event %s is set aside, the ledger refuses it: %s", each.id, each.reason)
    failpoint("drain.booked")
    await journal.done([entry.id for entry in entries])
    failpoint("drain.done")
    return booked
