"""Segments of living workers' spools that prove nothing any more: deleted, oldest first."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from billing.usage import DECODER
from gateway.jobs.deps import JobDeps
from gateway.jobs.drain_journal import tags_of
from gateway.stores import spooled
from gateway.stores.redis import quarantine
from gateway.stores.redis.channel import StoreUnavailable
from gateway.stores.sql import usage


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """A dead worker's spool is the replay's business."""
    aside: set[str] = set()
    for tag in await asyncio.to_thread(tags_of, deps.engine):
        with suppress(StoreUnavailable):  # what is set aside there counts as missing, and is kept
            aside |= await quarantine.ids(deps.client, tag)

    def recorded(events: Sequence[bytes]) -> bool:
        ids = {DECODER.decode(event).event_id for event in events}
        return not usage.missing(deps.engine, ids - aside)

    for writer in await asyncio.to_thread(spooled.writers, deps.spool_dir):
        if stopping.is_set():
            return
        if await asyncio.to_thread(spooled.is_alive, writer):
            await asyncio.to_thread(spooled.delete_acknowledged, writer, recorded)
