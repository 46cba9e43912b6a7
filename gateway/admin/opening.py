"""Budgets and limits begin with what was spent before them: their accounts are opened with it
before the change is answered.

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
from gateway.stores.redis.channel import StoreUnavailable
from gateway.stores.sql import budgets, limits, rows
from gateway.stores.sql.engine import reading

_LOG: Final = logging.getLogger(__name__)

_Accounted = tuple[tuple[rows.Budget, ...], tuple[rows.Limit, ...]]


async def open_accounts(
    deps: AdminDeps,
    tenant: rows.Tenant,
    of: _Accounted | None = None,
) -> None:
    """Of these budgets and limits; of all that the tenant has where none are given."""
    if deps.store is None:
        return
    try:
        if of is None:
            of = await asyncio.to_thread(_accounted, deps, tenant.id)
        mine, theirs = of
        wanted = recount.accounts(tenant, mine, theirs, clock.now_us())
        if wanted:
            await recount.recount(deps.engine, deps.store, tenant.shard, wanted, unopened_only=True)
    except (StoreUnavailable, SQLAlchemyError) as fault:
        _LOG.warning("accounts of tenant %s are left for the jobs to open: %s", tenant.id, fault)


def _accounted(deps: AdminDeps, tenant_id: str) -> _Accounted:
    with reading(deps.engine) as connection:
        return (
            budgets.RECORDS.all(connection, tenant_id=tenant_id),
            limits.RECORDS.all(connection, tenant_id=tenant_id),
        )
