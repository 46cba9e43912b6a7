"""Deltas of what was booked -> rollups. Reports have both at any time: this only keeps them few."""

import asyncio
from typing import Final

from gateway.jobs.deps import JobDeps
from gateway.stores.sql import compaction

EVERY_S: Final = 5.0


async def run(deps: JobDeps, _stopping: asyncio.Event) -> None:
    """Raises what the database raises; deltas that were not added then are there the next time."""
    if await asyncio.to_thread(compaction.pending, deps.engine):
        await asyncio.to_thread(compaction.compact, deps.engine)
