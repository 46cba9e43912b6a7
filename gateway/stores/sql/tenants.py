"""Tenants: who is invoiced. Every other row of a tenant carries its id."""

import secrets
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, func, select, update

from gateway.stores.sql import admin_tokens
from gateway.stores.sql.invoice_tables import commitments, invoices
from gateway.stores.sql.records import Records, first_in_use
from gateway.stores.sql.rollups import rolled
from gateway.stores.sql.rows import Tenant
from gateway.stores.sql.tables import (
    budgets,
    discounts,
    keys,
    limits,
    policies,
    prices,
    teams,
    tenants,
)

RECORDS: Final = Records(tenants, Tenant)


def in_use(connection: Connection, tenant_id: str) -> str | None:
    """What still belongs to the tenant, in words; None when it may go."""
    return first_in_use(
        connection,
        ("teams", teams.c.tenant_id == tenant_id),
        ("keys", keys.c.tenant_id == tenant_id),
        ("budgets", budgets.c.tenant_id == tenant_id),
        ("limits", limits.c.tenant_id == tenant_id),
        ("policies", policies.c.tenant_id == tenant_id),
        ("prices", prices.c.tenant_id == tenant_id),
        ("discounts", discounts.c.tenant_id == tenant_id),
        ("commitments", commitments.c.tenant_id == tenant_id),
        ("invoices", invoices.c.tenant_id == tenant_id),
        ("usage", rolled.c.tenant_id == tenant_id),
        admin_tokens.reference("tenant", tenant_id),
    )


def least_used(connection: Connection, tags: Sequence[str]) -> str:
    """The tag that the fewest tenants have; of several, any."""
    counted = select(tenants.c.shard, func.count()).group_by(tenants.c.shard)
    used: dict[str, int] = {row[0]: row[1] for row in connection.execute(counted)}
    fewest = min(used.get(tag, 0) for tag in tags)
    return secrets.choice([tag for tag in tags if used.get(tag, 0) == fewest])


def has_money(connection: Connection, tenant_id: str) -> str | None:
    """What is already written in the tenant's currency; None while that may still change."""
    return first_in_use(
        connection,
        ("budgets", budgets.c.tenant_id == tenant_id),
        ("prices", prices.c.tenant_id == tenant_id),
        ("commitments", commitments.c.tenant_id == tenant_id),
        ("invoices", invoices.c.tenant_id == tenant_id),
        ("usage", rolled.c.tenant_id == tenant_id),
    )


def count_anew(connection: Connection, tenant_id: str, at_us: int) -> None:
    """The days of another time zone begin and end elsewhere: every account of the tenant is another
    from now on.
    """
    for table in (budgets, limits):
        connection.execute(
            update(table).where(table.c.tenant_id == tenant_id).values(reopened_at_us=at_us)
        )
