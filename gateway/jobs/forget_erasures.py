"""That somebody was erased is remembered for as long as anything may still be booked of what he had
asked before, and then forgotten.
"""

import asyncio
from typing import Final

from gateway import clock
from gateway.jobs.deps import JobDeps
from gateway.stores.sql import erasure

EVERY_S: Final = 3_600.0


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """Until none is left whose time is over."""
    before_us = clock.now_us() - erasure.KEPT_US
    while not stopping.is_set():
        if not await asyncio.to_thread(erasure.forget, deps.engine, before_us):
            return
