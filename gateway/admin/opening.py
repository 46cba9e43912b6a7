"""Budgets, limits and what policies count by the hour begin with what was spent before them: their
accounts are opened with it before the change is answered.

Where that fails, the jobs do it as soon as a request needs such an account. Until then requests
under it wait or are refused: nothing is admitted against a sum that is too low.
"""

import asyncio
import logging
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from gateway import clock
from gateway.admin.deps import AdminDeps
from gateway.stores import recount
from gateway.stores.counted import Counted
from gateway.stores.redis.channel import StoreUnavailable
from gateway.stores.sql import budgets, grants, limits, rows
from gateway.stores.sql.engine import reading
from gateway.stores.team_hours import counted_hours

_LOG: Final = logging.getLogger(__name__)

_Accounted = tuple[tuple[rows.Budget, ...], tuple[rows.Limit, ...]]


async def open_accounts(
    deps: AdminDeps,
    tenant: rows.Tenant,
    of: _Accounted | None = None,
) -> None:
    """Of these budgets and limits; of all that the tenant has, and that its policies count, where
    none are given.
    """
    if deps.store is None:
        return
    try:
        wanted = await asyncio.to_thread(_wanted, deps, tenant, of)
        if wanted:
            await recount.recount(deps.engine, deps.store, tenant.shard, wanted, unopened_only=True)
    except (StoreUnavailable, SQLAlchemyError) as fault:
        _LOG.warning("accounts of tenant %s are left for the jobs to open: %s", tenant.id, fault)


def _wanted(deps: AdminDeps, tenant: rows.Tenant, of: _Accounted | None) -> list[Counted]:
    now_us = clock.now_us()
    with reading(deps.engine) as connection:
        granted = grants.in_force(connection, now_us, tenant_id=tenant.id)
        if of is not None:
            return recount.accounts(tenant, *of, granted, now_us)
        mine = budgets.RECORDS.all(connection, tenant_id=tenant.id)
        theirs = limits.RECORDS.all(connection, tenant_id=tenant.id)
        hours = counted_hours(connection, tenant_id=tenant.id).get(tenant.id, ())
    return recount.accounts(tenant, mine, theirs, granted, now_us, hours)
