"""When a job runs: one after another of its own kind, never twice at a time in this process."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from gateway.jobs.deps import JobDeps


@dataclass(frozen=True)
class Job:
    """`run` is told when the process is stopping and then ends soon. It may raise: it is run again
    after `every_s`, which grows while it goes on failing.
    """

    name: str
    run: Callable[[JobDeps, asyncio.Event], Awaitable[None]]
    every_s: float  # from the end of one run to the start of the next
    once_more: bool = False  # a last run after the order to stop


async def at_every_tag(tags: Iterable[str], look: Callable[[str], Awaitable[object]]) -> None:
    """One tag after another, each whatever became of those before: a shard that is down must not
    keep the others waiting. Raises the faults of all together.
    """
    faults: list[Exception] = []
    for tag in tags:
        try:
            await look(tag)
        except Exception as fault:  # noqa: BLE001 - raised below
            faults.append(fault)
    if faults:
        raise ExceptionGroup("some tags failed", faults)


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Sleep, or wake at once when the process is to stop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()
