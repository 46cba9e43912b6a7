"""Queue depth and cache use, asked of the backends that publish them, for the workers to rank by.

Asked are engines of one's own: those not placed in a cloud, and those an operator trusts. Whoever
publishes nothing is asked again now and then: it may be replaced by one that does.
"""

import asyncio
from typing import Final

from sqlalchemy import Engine

from gateway import clock
from gateway.backends.lookout import Lookout
from gateway.jobs.deps import JobDeps
from gateway.stores.redis import engines
from gateway.stores.sql import backends
from gateway.stores.sql.engine import reading
from gateway.stores.sql.rows import Backend
from policies.candidates import Gauges

EVERY_S: Final = 2.0
_AT_ONCE: Final = 16


async def run(deps: JobDeps, _stopping: asyncio.Event) -> None:
    """One look at all that are due."""
    if deps.lookout is None:
        return
    now_us = clock.monotonic_us()
    listed = await asyncio.to_thread(_listed, deps.engine)
    due = [each for each in listed if is_own(each) and deps.unasked.get(each.id, 0) <= now_us]
    bound = asyncio.Semaphore(_AT_ONCE)
    answers = await asyncio.gather(*(_look(deps.lookout, each, bound) for each in due))
    found: dict[str, Gauges] = {}
    for backend, answer in zip(due, answers, strict=True):
        if isinstance(answer, Gauges):
            found[backend.id] = answer
        else:
            deps.unasked[backend.id] = now_us + answer
    if found:
        await engines.publish(deps.holds.channels, found)
    for gone in deps.unasked.keys() - {each.id for each in listed}:
        del deps.unasked[gone]


def is_own(backend: Backend) -> bool:
    """Whether it may be asked: nobody else's service gets requests it did not offer to answer."""
    return backend.placement != "cloud" or backend.trusted


async def _look(lookout: Lookout, backend: Backend, bound: asyncio.Semaphore) -> Gauges | int:
    async with bound:
        return await lookout.look(backend.base_url)


def _listed(engine: Engine) -> tuple[Backend, ...]:
    with reading(engine) as connection:
        return tuple(backends.RECORDS.all(connection))
