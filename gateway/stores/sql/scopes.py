"""What a policy, budget or limit is attached to: a tenant, a team or a key."""

from sqlalchemy import ColumnElement, Connection, select

from gateway.stores.sql.alert_tables import alert_channels
from gateway.stores.sql.breaker_tables import loop_breakers
from gateway.stores.sql.tables import budgets, keys, limits, policies, teams, tenants

_TABLES = {"tenant": tenants, "team": teams, "key": keys}


def tenant_of(connection: Connection, kind: str, scope_id: str) -> str | None:
    """The tenant that owns the scope; None when there is no such tenant, team or key."""
    table = _TABLES[kind]
    owner = table.c.id if kind == "tenant" else table.c.tenant_id
    found = connection.execute(select(owner).where(table.c.id == scope_id)).scalar_one_or_none()
    return None if found is None else str(found)


def references(kind: str, scope_id: str) -> tuple[tuple[str, ColumnElement[bool]], ...]:
    """For `records.first_in_use`: everything that is attached to this scope."""
    return tuple(
        (table.name, (table.c.scope_kind == kind) & (table.c.scope_id == scope_id))
        for table in (budgets, limits, policies, alert_channels, loop_breakers)
    )
