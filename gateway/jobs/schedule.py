"""When a job runs: one after another of its own kind, never twice at a time in this process."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from gateway.jobs.deps import JobDeps

_LOG: Final = logging.getLogger(__name__)


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
    """All tags at once, each whatever becomes of the others: a shard that is down or hangs keeps
    nobody waiting for what is due elsewhere. Raises only when no tag went well, for then it is more
    than a shard.
    """
    named = list(tags)
    ended = await asyncio.gather(*map(look, named), return_exceptions=True)
    faults = [one for one in ended if isinstance(one, Exception)]
    if faults and len(faults) == len(named):
        raise ExceptionGroup("every tag failed", faults)
    if faults:
        failed = [tag for tag, one in zip(named, ended, strict=True) if isinstance(one, Exception)]
        because = causes(ExceptionGroup("some tags failed", faults))
        _LOG.warning("tried again soon: %s: %s", ", ".join(failed), because)


def causes(fault: BaseException) -> str:
    """A group's own message says nothing; its members' do."""
    if isinstance(fault, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(map(causes, fault.exceptions)))
    return f"{type(fault).__name__}: {fault}".splitlines()[0][:300]


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Sleep, or wake at once when the process is to stop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()
