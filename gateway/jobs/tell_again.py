"""What workers have ended and nobody knows of: told to the journal once more.

A store may confirm a settlement and lose it: it failed over, and the rebuild ran where this home's
spools cannot be read; or it went to another process and back. The outcome is then in the spool of a
worker that has no reason to send it again, and would wait there for the worker's end. Or the
worker is stopped, or cut off from the store, before it could send it once. What is in neither
ledger nor journal at two looks in a row is handed in, as a dead worker's is: the hold that is still
there ends with it, and what was admitted without the store is posted under its mark, so that the
worker posts nothing a second time. Where neither moves a counter, the accounts are counted at their
next look, and not when it would be time again.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable
from typing import Final

from billing.usage import UsageEvent
from gateway.clock import monotonic_us
from gateway.jobs import restoration
from gateway.jobs.deps import JobDeps
from gateway.jobs.evidence import Findings
from gateway.jobs.replay_spool import handed_in
from gateway.stores.redis import keys

MOST_WAITING: Final = 20_000  # entries: a drain that is behind is not hurried by reading them all

_LOG: Final = logging.getLogger(__name__)


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """One look. Raises what the stores raise."""
    found = await asyncio.to_thread(restoration.untold, deps.engine, deps.spool_dir)
    before = set(deps.untold)
    deps.untold.clear()
    for tag, ended in found.items():
        deps.untold.update(event.event_id for event in ended.events)
        waiting = [event for event in ended.events if event.event_id in before]
        if waiting and not stopping.is_set():
            await _tell(deps, tag, ended, waiting)


async def _tell(deps: JobDeps, tag: str, found: Findings, events: list[UsageEvent]) -> None:
    channels = deps.holds.channels
    if await channels.of(tag).ask("XLEN", keys.journal(tag)) > MOST_WAITING:
        return
    known = {event.event_id for event in await restoration.journaled(channels, tag)}
    lost = unknown(events, known)
    for event in lost:
        await deps.holds.settle(tag, handed_in(event, found))
    if lost:
        deps.opened.count_at_us = monotonic_us()
        _LOG.warning("%d outcomes had reached no journal and are handed in again", len(lost))


def unknown(events: Iterable[UsageEvent], known: Collection[str]) -> list[UsageEvent]:
    return [event for event in events if event.event_id not in known]
