"""Holds that nobody keeps alive any more: each ends, by evidence or by estimate (L10).

A hold lives for 30 s unless its worker extends it, which it does every 8 s. What is 15 s overdue is
ended here, where somebody looks every 5 s: a dead worker's holds are terminal within a minute,
wherever its spool has gone. Where the operator chose another life, the other times follow it. The
script that ends one asks once more whether it is overdue and whether the lease is still ours, so a
reaper that was held up does no harm.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Final

import msgspec

from billing.usage import DECODER, UsageEvent
from gateway.failpoints import failpoint
from gateway.jobs.deps import JobDeps
from gateway.jobs.drain_journal import tags_of
from gateway.jobs.endings import UNBILLABLE, Ending, ending, settlement
from gateway.jobs.schedule import at_every_tag
from gateway.jobs.traces import traces
from gateway.stores.redis import keys, leases, records
from gateway.stores.redis.holds import Reaping
from gateway.stores.redis.journal import Journal
from gateway.stores.sql import usage

LEASE_MS: Final = 20_000
MOST: Final = 5_000  # a turn
_AT_ONCE: Final = 64

_LOG: Final = logging.getLogger(__name__)


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """One look at every tag. Raises what the stores raise: without the ledger nothing is ended."""

    async def look(tag: str) -> None:
        if not stopping.is_set():
            # Half a life late, so that a worker that merely stalls keeps its holds.
            await reap(deps, tag, deps.holds.ttl_ms // 2)

    await at_every_tag(await asyncio.to_thread(tags_of, deps.engine), look)


async def reap(deps: JobDeps, tag: str, late_ms: int) -> int:
    """Ends the holds of one tag that are so long overdue; answers how many. 0 while another process
    is at it.
    """
    overdue = await records.overdue(deps.client, tag, MOST, late_ms)
    if not overdue:
        return 0
    lease = await leases.take(deps.client, f"reap:{{{tag}}}", LEASE_MS)
    if lease is None:
        return 0
    failpoint("reap.leased")
    try:
        endings = await _endings(deps, tag, overdue)
        reaping = Reaping(late_ms, keys.lease(lease.name), lease.token)
        failpoint("reap.decided")
        ended = await _end(deps, tag, endings, reaping)
        failpoint("reap.ended")
        return ended
    finally:
        await leases.give_back(deps.client, lease)


async def _endings(deps: JobDeps, tag: str, hold_ids: Collection[str]) -> dict[str, Ending]:
    holds = await records.all_of(deps.client, tag, list(hold_ids))
    # The spools before the ledger: what is acknowledged and deleted there is booked by then.
    seen = await asyncio.to_thread(traces, deps.spool_dir, list(holds))
    journaled = await _journaled(deps, tag, holds)
    booked = await asyncio.to_thread(usage.ended, deps.engine, list(holds), journaled)
    found = {hold_id: ending(hold, seen, booked) for hold_id, hold in holds.items()}
    return {hold_id: one for hold_id, one in found.items() if one is not None}


async def _journaled(deps: JobDeps, tag: str, hold_ids: Collection[str]) -> list[UsageEvent]:
    """What is known of these requests and may not have reached the ledger."""
    found: list[UsageEvent] = []
    async for entries in Journal(deps.client, tag, deps.name).waiting():
        for entry in entries:
            with suppress(msgspec.DecodeError):  # the drain sets it aside, and says so
                event = DECODER.decode(entry.event)
                if event.request_id in hold_ids:
                    found.append(event)
    return found


async def _end(deps: JobDeps, tag: str, endings: Mapping[str, Ending], reaping: Reaping) -> int:
    ended = 0
    waiting = list(endings.items())
    for start in range(0, len(waiting), _AT_ONCE):
        part = waiting[start : start + _AT_ONCE]
        answers = await asyncio.gather(
            *(deps.holds.settle(tag, settlement(id_, one, reaping)) for id_, one in part)
        )
        for (hold_id, one), done in zip(part, answers, strict=True):
            if done:
                level = logging.ERROR if one is UNBILLABLE else logging.WARNING
                _LOG.log(level, "hold %s was overdue and is ended: %s", hold_id, one.why)
        ended += sum(answers)
    return ended
