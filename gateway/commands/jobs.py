"""`meterhouse jobs`: what follows a request: journal and spools into the ledger, clearing up."""

import argparse
import asyncio
import gc
import os
import signal
import socket
from typing import Any

from gateway.settings import Settings


def add(subparsers: "argparse._SubParsersAction[Any]") -> None:
    subparsers.add_parser("jobs", help="run the background jobs of this home until stopped")


def run(_args: argparse.Namespace) -> int:
    import uvloop

    uvloop.run(main(Settings.from_env(os.environ)))
    return 0


async def main(settings: Settings) -> None:
    """Until SIGTERM or SIGINT; what is in the journal by then is booked first."""
    from gateway import clock, unpriced
    from gateway.jobs.runner import jobs_for, run_jobs
    from gateway.wiring.jobs import open_jobs

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    name = f"{socket.gethostname()}-{os.getpid()}"
    async with open_jobs(settings, name) as deps:
        await asyncio.to_thread(unpriced.tell, deps.engine, clock.now_us())
        _spare_the_collector()
        await run_jobs(deps, stopping, jobs_for(deps.holds.ttl_ms))


def _spare_the_collector() -> None:
    """What is booked is thousands of objects at a time and no cycle: nor is what is loaded by now
    looked through again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
