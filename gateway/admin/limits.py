"""Limits: requests and tokens a minute, tokens a day, requests at once; one object a scope."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from gateway import clock, ids
from gateway.admin import fields, opening, scoped
from gateway.admin.deps import AdminDeps
from gateway.admin.problems import invalid
from gateway.admin.resource import Resource
from gateway.admin.roles import Right
from gateway.stores.sql import limits, rows, tenants

Most = Annotated[int, Meta(ge=1, le=10**12)]
MostAtOnce = Annotated[int, Meta(ge=1, le=10**6)]


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    scope: fields.Scope
    requests_per_minute: Most | None = None
    tokens_per_minute: Most | None = None
    tokens_per_day: Most | None = None
    concurrent_requests: MostAtOnce | None = None


class LimitView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant_id: str
    scope: fields.Scope
    requests_per_minute: int | None
    tokens_per_minute: int | None
    tokens_per_day: int | None
    concurrent_requests: int | None
    created_at: str


def _build(
    connection: Connection, _deps: AdminDeps, body: Limit, before: rows.Limit | None
) -> rows.Limit:
    kind, scope_id, tenant_id = scoped.place(connection, body.scope, before)
    figures = {
        name: getattr(body, name)
        for name in (
            "requests_per_minute",
            "tokens_per_minute",
            "tokens_per_day",
            "concurrent_requests",
        )
    }
    if all(value is None for value in figures.values()):
        raise invalid("requests_per_minute", f"set at least one of {', '.join(figures)}")
    if before is None:
        before = rows.Limit(
            id=ids.new("lim"),
            tenant_id=tenant_id,
            scope_kind=kind,
            scope_id=scope_id,
            created_at_us=clock.now_us(),
        )
    elif before.tokens_per_day is None and body.tokens_per_day is not None:
        # They may have been counted before, and not since.
        figures["reopened_at_us"] = clock.now_us()
    return msgspec.structs.replace(before, **figures)


async def _show(_deps: AdminDeps, row: rows.Limit, _tenant: rows.Tenant) -> LimitView:
    return LimitView(
        id=row.id,
        tenant_id=row.tenant_id,
        scope=fields.scope_of(row.scope_kind, row.scope_id),
        requests_per_minute=row.requests_per_minute,
        tokens_per_minute=row.tokens_per_minute,
        tokens_per_day=row.tokens_per_day,
        concurrent_requests=row.concurrent_requests,
        created_at=clock.rfc3339(row.created_at_us),
    )


RESOURCE: Final = Resource(
    plural="limits",
    singular="limit",
    records=limits.RECORDS,
    body=Limit,
    view=LimitView,
    page=scoped.ScopedPage,
    build=_build,
    show=_show,
    in_use=lambda _connection, _row: None,
    taken="a limit for this scope",
    reads=Right.LIMITS_READ,
    changes=Right.LIMITS_CHANGE,
    facts=lambda connection, row: tenants.RECORDS.one(connection, id=row.tenant_id),
    opened=lambda deps, row, tenant: opening.open_accounts(deps, tenant, ((), (row,))),
)
