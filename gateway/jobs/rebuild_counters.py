"""A store that lost its counters gets them back, and only then is admitted against again (L7, L2).

Whatever happened to it - emptied, restarted, restored, failed over, swapped - shows in its epoch.
Under a lease whose token every step checks: a new epoch is begun, what the spools know and the
ledger does not is handed in, the holds of living requests are put back, counters are made what
ledger and journal add up to, and the epoch is published. Each step may be run again.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from billing.usage import ENCODER, UsageEvent
from gateway import clock
from gateway.clock import monotonic_us
from gateway.failpoints import failpoint
from gateway.jobs import restoration
from gateway.jobs.deps import JobDeps
from gateway.jobs.drain_journal import tags_of
from gateway.jobs.evidence import HELD, Unheld
from gateway.jobs.open_accounts import in_force
from gateway.jobs.restoration import Known, Living
from gateway.jobs.schedule import at_every_tag
from gateway.stores import spooled
from gateway.stores.counted import Counted
from gateway.stores.recount import recount, recount_held
from gateway.stores.redis import epochs, keys, leases, lending, records
from gateway.stores.redis.channel import StoreUnavailable
from gateway.stores.redis.epochs import Epoch
from gateway.stores.redis.holds import Settlement
from gateway.stores.redis.leases import Lease
from gateway.stores.redis.restoring import lend_again, restore, take_back
from gateway.stores.sql import usage
from gateway.stores.sql.engine import reading
from gateway.stores.sql.epochs import begin, numbers
from policies.leases import TakenBack

EVERY_S: Final = 0.2
LEASE_MS: Final = 5_000
RENEW_EVERY_S: Final = 1.0
# A worker that had its grant longer ago than this before it used it asks the store again, so what
# was granted by lost counters is in the spools by then.
GRACE_S: Final = 0.5
_AT_ONCE: Final = 64

_LOG: Final = logging.getLogger(__name__)


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """One look at every tag. Without store or ledger nothing can be rebuilt yet."""
    try:
        tags, least = await asyncio.to_thread(_remembered, deps.engine)
    except SQLAlchemyError as fault:
        _LOG.debug("counters cannot be looked at now: %s", fault)
        return

    async def unless_down(tag: str) -> None:
        try:
            if not stopping.is_set():
                await look(deps, tag, least.get(tag, 0))
        except (StoreUnavailable, SQLAlchemyError) as fault:
            _LOG.debug("the counters of %s cannot be looked at now: %s", tag, fault)

    # A shard that failed over has the tags of a third of all tenants: they wait side by side.
    await at_every_tag(tags, unless_down)


def _remembered(engine: Engine) -> tuple[tuple[str, ...], Mapping[str, int]]:
    with reading(engine) as connection:
        least = numbers(connection)
    return tags_of(engine), least


async def look(deps: JobDeps, tag: str, least: int) -> bool:
    """Rebuilds the counters of one tag where that is needed; answers whether it did."""
    channels = deps.holds.channels
    epoch = await epochs.read(channels, tag)
    if epochs.is_whole(channels, tag, epoch, least):
        return False
    lease = await leases.take(deps.client, f"rebuild:{{{tag}}}", LEASE_MS)
    if lease is None:
        return False
    began_us = monotonic_us()
    kept = asyncio.create_task(_keep(deps, lease))
    try:
        seen = epoch.number if epoch is not None else 0
        number = await asyncio.to_thread(begin, deps.engine, tag, max(seen, least))
        failpoint("rebuild.begun")
        mine = keys.lease(lease.name), lease.token
        closed = await epochs.close(channels, tag, number, mine)
        failpoint("rebuild.closed")
        if epoch is not None or least:
            await asyncio.sleep(GRACE_S)
        count = await _rebuild(deps, tag, closed)
        await epochs.open_again(channels, tag, closed, mine, closed.since_ms)
        failpoint("rebuild.opened")
    except (StoreUnavailable, SQLAlchemyError) as fault:
        _LOG.warning("tag %s: a rebuild of its counters is begun anew: %s", tag, fault)
        raise
    finally:
        kept.cancel()
        with suppress(StoreUnavailable):  # then it expires
            await leases.give_back(deps.client, lease)
    took_ms = (monotonic_us() - began_us) // 1000
    _LOG.warning("tag %s: %d counters rebuilt in %d ms, epoch %d", tag, count, took_ms, number)
    return True


async def _keep(deps: JobDeps, lease: Lease) -> None:
    """A rebuild may take longer than its lease; one whose process died must not hold up others."""
    while True:
        await asyncio.sleep(RENEW_EVERY_S)
        with suppress(StoreUnavailable):
            await leases.renew(deps.client, lease, LEASE_MS)


async def _rebuild(deps: JobDeps, tag: str, closed: Epoch) -> int:
    """How many accounts there are. Nothing is admitted while it goes on; requests go on ending."""
    channels = deps.holds.channels
    found = await asyncio.to_thread(in_force, deps.engine, clock.now_us())
    mine = found.get(tag, [])
    async with deps.adopting:
        known = await asyncio.to_thread(restoration.known, deps.engine, deps.spool_dir, tag)
    await _hand_in(deps, tag, known.events, known.unheld)
    await _mark(deps, tag, known)
    failpoint("rebuild.told")
    await _lift_ended(deps, tag)
    placed = await restore(channels, tag, closed, restoration.holds(known, mine, deps.holds.ttl_ms))
    await _lend_again(deps, tag, closed, known, {one.key for one in mine})
    failpoint("rebuild.placed")
    there = set(placed)
    await _lift_done(deps, tag, [one for one in known.living if one.hold_id in there])
    await recount(deps.engine, channels, tag, mine)
    failpoint("rebuild.counted")
    await _count_held(deps, tag, mine)
    failpoint("rebuild.held")
    return len(mine)


async def _hand_in(
    deps: JobDeps, tag: str, events: Sequence[UsageEvent], unheld: Mapping[str, Unheld]
) -> None:
    """What the ledger lacks goes into the journal, and is counted from there: no hold bears these
    ids, so no counter moves. What was admitted without the store is marked as posted with it.
    """
    for start in range(0, len(events), _AT_ONCE):
        await asyncio.gather(
            *(
                deps.holds.settle(tag, told(event, unheld.get(event.request_id, HELD)))
                for event in events[start : start + _AT_ONCE]
            )
        )


async def _mark(deps: JobDeps, tag: str, known: Known) -> None:
    """What the ledger has is counted from there. Somebody else may have told it, while a worker
    was stopped or cut off that posts it later: beside what is counted, and out of a lease that it
    is taken from already.
    """
    for start in range(0, len(known.booked), _AT_ONCE):
        part = known.booked[start : start + _AT_ONCE]
        await asyncio.gather(
            *(deps.holds.settle(tag, marked(event, known.unheld)) for event in part)
        )


def marked(event: UsageEvent, unheld: Mapping[str, Unheld]) -> Settlement:
    """What the store is told of an event that it need not count."""
    return Settlement(event.request_id, 0, 0, unheld=unheld[event.request_id].accounts)


def told(event: UsageEvent, unheld: Unheld) -> Settlement:
    """What the store is told of an event that it may have forgotten."""
    hold_id = event.request_id if unheld.accounts else event.event_id
    return Settlement(hold_id, 0, 0, (), ENCODER.encode(event), unheld=unheld.accounts)


async def _lend_again(
    deps: JobDeps, tag: str, closed: Epoch, known: Known, in_force: Collection[str]
) -> None:
    """What living workers of this home may be spending is set aside once more; what the store says
    of them beyond that is of old state.
    """
    living = {one.lease_id.rpartition("/")[0] for one in known.lent}
    writers = {writer.name for writer in spooled.writers(deps.spool_dir)}
    old = [
        TakenBack(one.lease_id, one.account)
        for one in await lending.listed(deps.client, tag)
        if one.owner in writers or one.owner in living
    ]
    await take_back(deps.holds.channels, tag, closed, old)
    due = [one for one in known.lent if one.account.key in in_force and one.amount]
    await lend_again(deps.holds.channels, tag, closed, due)


async def _lift_ended(deps: JobDeps, tag: str) -> None:
    """Holds in old state of requests that have ended: their money counts as spent already, and
    whoever repeats their idempotency keys is told that they are over.
    """
    ids = await records.ids(deps.client, tag)
    events = await restoration.journaled(deps.holds.channels, tag)
    for hold_id in await asyncio.to_thread(usage.ended, deps.engine, ids, events):
        await deps.holds.settle(tag, restoration.lifted(hold_id))


async def _lift_done(deps: JobDeps, tag: str, placed: list[Living]) -> None:
    """Of the holds put back, those whose requests had ended before they were: their settlement
    found none, and none is coming that could end them. Or it never came: a worker that is cut off
    may be lost before it does, and without its hold the request would be billed nowhere (L10). So
    what it came to is handed in first, by whoever knows it.
    """
    over = await asyncio.to_thread(restoration.done, deps.spool_dir, placed)
    missing = await asyncio.to_thread(
        usage.missing, deps.engine, [event.event_id for event in over.events]
    )
    events = [event for event in over.events if event.event_id in missing]
    await _hand_in(deps, tag, events, over.unheld)
    for hold_id in over.hold_ids:
        await deps.holds.release(tag, hold_id)


async def _count_held(deps: JobDeps, tag: str, mine: list[Counted]) -> None:
    channels, client = deps.holds.channels, deps.client
    await recount_held(channels, tag, mine, lambda: records.everything(client, tag))
