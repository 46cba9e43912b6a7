"""Accounts that are not there and should be: opened with what was spent before them (L7).

The admin plane opens those of a change itself. Here is what it could not do, what was taken out of
the store, and from time to time a look at all of them: a counter that differs from the ledger, by
requests that began before it was opened or usage that came to light late, is put right.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Final

from sqlalchemy import Engine

from gateway import clock
from gateway.clock import monotonic_us
from gateway.jobs.deps import JobDeps
from gateway.jobs.drain_journal import tags_of
from gateway.jobs.schedule import at_every_tag
from gateway.stores.counted import Counted
from gateway.stores.recount import accounts, recount
from gateway.stores.redis import keys
from gateway.stores.redis.channel import StoreUnavailable
from gateway.stores.sql import budgets, configuration, grants, limits, rows, tenants
from gateway.stores.sql.engine import reading
from gateway.stores.team_hours import counted_hours

EVERY_S: Final = 0.3
COUNT_EVERY_US: Final = 600_000_000
COUNT_AFTER_CHANGE_US: Final = 30_000_000

_LOG: Final = logging.getLogger(__name__)


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """One look. Raises what the stores raise."""
    known = deps.opened
    tags, revision = await asyncio.to_thread(_state, deps.engine)
    changed = revision != known.revision
    due = monotonic_us() >= known.count_at_us
    if not (changed or due or await _asked_for(deps, tags)):
        return
    found = await asyncio.to_thread(in_force, deps.engine, clock.now_us())

    async def look(tag: str) -> None:
        if not stopping.is_set():
            await _look(deps, tag, found[tag], count=due)

    await at_every_tag(found, look)
    if stopping.is_set():
        return
    known.revision = revision
    if due:
        known.count_at_us = monotonic_us() + COUNT_EVERY_US
    if changed:
        known.count_at_us = min(known.count_at_us, monotonic_us() + COUNT_AFTER_CHANGE_US)


def _state(engine: Engine) -> tuple[tuple[str, ...], int]:
    return tags_of(engine), configuration.revision(engine)


async def _asked_for(deps: JobDeps, tags: tuple[str, ...]) -> bool:
    """Whether a worker waits for an account. It asks again while it does."""
    channels = deps.holds.channels
    for tag in tags:
        with suppress(StoreUnavailable):  # nor does its worker get an answer
            if await channels.of(tag).ask("GETDEL", keys.unopened(tag)):
                return True
    return False


async def _look(deps: JobDeps, tag: str, found: list[Counted], *, count: bool) -> None:
    channels = deps.holds.channels
    opened = await recount(deps.engine, channels, tag, found, unopened_only=True)
    if opened:
        _LOG.info("%d accounts are opened with what was spent before", len(opened))
    wrong = await recount(deps.engine, channels, tag, found) if count else ()
    if wrong:
        _LOG.warning("%d accounts differed from the ledger and are put right", len(wrong))


def in_force(engine: Engine, now_us: int) -> dict[str, list[Counted]]:
    """Every account that is in force, by tag."""
    with reading(engine) as connection:
        kept = tenants.RECORDS.all(connection)
        of_budgets = budgets.RECORDS.all(connection)
        of_limits = limits.RECORDS.all(connection)
        granted = grants.in_force(connection, now_us)
        hours = counted_hours(connection)
    mine: dict[str, tuple[list[rows.Budget], list[rows.Limit]]] = {
        tenant.id: ([], []) for tenant in kept
    }
    for budget in of_budgets:
        mine[budget.tenant_id][0].append(budget)
    for limit in of_limits:
        mine[limit.tenant_id][1].append(limit)
    found: dict[str, list[Counted]] = {}
    for tenant in kept:
        found.setdefault(tenant.shard, []).extend(
            accounts(tenant, *mine[tenant.id], granted, now_us, hours.get(tenant.id, ()))
        )
    return found
