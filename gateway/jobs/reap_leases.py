"""Leases that nobody will give back any more.

A worker gives its leases back itself, and whoever replays a dead worker's spool ends them. Here is
what both have missed: of a worker that lives and does not know of it (it was granted after it had
been given up), and of one whose spool is not in this home. The latter may be cut off, and spending:
its leases are kept for long, and ended with a complaint.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable
from typing import Final

from gateway.failpoints import failpoint
from gateway.jobs.deps import JobDeps
from gateway.jobs.drain_journal import tags_of
from gateway.jobs.schedule import at_every_tag
from gateway.stores import lease_file, spooled
from gateway.stores.redis import lending
from gateway.stores.redis.lending import Listed
from gateway.stores.spool import LOCK_NAME
from policies.leases import TakenBack

LATE_MS: Final = 15_000
LOST_MS: Final = 3_600_000  # a request that was admitted at the last moment has ended by then

_LOG: Final = logging.getLogger(__name__)


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """One look at every tag. Raises what the stores raise."""

    async def look(tag: str) -> None:
        if not stopping.is_set():
            await reap(deps, tag)

    await at_every_tag(await asyncio.to_thread(tags_of, deps.engine), look)


async def reap(deps: JobDeps, tag: str, late_ms: int = LATE_MS, lost_ms: int = LOST_MS) -> int:
    """Ends the leases of one tag that are nobody's; answers how many. `late_ms`, `lost_ms`: how
    long after their expiry, with and without a word from their worker.
    """
    overdue = await lending.overdue(deps.client, tag, late_ms)
    ended = 0
    if overdue:
        failpoint("reap_leases.found")
    for one, wait_ms in await asyncio.to_thread(_forlorn, deps, overdue, late_ms, lost_ms):
        back = TakenBack(one.lease_id, one.account, wait_ms)
        if await deps.holds.taking_back(tag, back):
            ended += 1
            failpoint("reap_leases.ended")
            level = logging.ERROR if wait_ms == lost_ms else logging.WARNING
            _LOG.log(level, "lease %s on %s was overdue and is ended", one.lease_id, one.account)
    return ended


def _forlorn(
    deps: JobDeps, overdue: Iterable[Listed], late_ms: int, lost_ms: int
) -> list[tuple[Listed, int]]:
    found = []
    for one in overdue:
        writer = deps.spool_dir / one.owner
        kept: Collection[str] | None = None
        if (writer / LOCK_NAME).exists():
            if not spooled.is_alive(writer):
                continue  # whoever replays its spool ends it
            kept = {each.lease_id for each in lease_file.read(writer)}
        wait_ms = patience_ms(one, kept, late_ms, lost_ms)
        if wait_ms is not None:
            found.append((one, wait_ms))
    return found


def patience_ms(
    one: Listed, kept: Collection[str] | None, late_ms: int, lost_ms: int
) -> int | None:
    """How long after its expiry a lease is ended. None: it is not, its worker lives and has it.
    `kept`: what that one has by its own word; None: there is no word from it.
    """
    if kept is None:
        return lost_ms
    return None if one.lease_id in kept else late_ms
