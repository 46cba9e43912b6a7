"""Budgets: an amount a period for a tenant, team or key, and how much of it is spent right now."""

from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing import money
from billing.periods import Period, Window, window
from gateway import clock, ids
from gateway.admin import fields, opening, scoped
from gateway.admin.deps import AdminDeps
from gateway.admin.problems import invalid, together
from gateway.admin.resource import Resource
from gateway.admin.roles import Right
from gateway.stores.redis.channel import StoreUnavailable
from gateway.stores.redis.keys import account
from gateway.stores.sql import budgets, grants, rows, tenants
from policies.accounts import Balance

Percent = Annotated[int, Meta(ge=1, le=1000)]


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    scope: fields.Scope
    amount: fields.Decimal
    period: Period
    currency: fields.Currency | None = None  # the tenant's; any other is refused
    mode: Literal["hard", "soft"] = "hard"
    outage: Literal["strict", "bounded", "open"] = "bounded"
    thresholds: Annotated[tuple[Percent, ...], Meta(max_length=10)] = (50, 80, 100)


class BudgetView(msgspec.Struct, frozen=True, kw_only=True):
    """`spent`, `held`, `leased` and `remaining` are of the window, and add up to `amount` and
    `granted`; null while the quota store is away. `granted` is what grants allow at present beyond
    the amount; `leased` is what workers may spend while the store is away, and give back where it
    is needed.
    """

    id: str
    tenant_id: str
    scope: fields.Scope
    amount: str
    granted: str
    currency: str
    period: str
    mode: str
    outage: str
    thresholds: tuple[int, ...]
    window_start: str
    window_end: str
    spent: str | None
    held: str | None
    leased: str | None
    remaining: str | None
    created_at: str


def _build(
    connection: Connection, _deps: AdminDeps, body: Budget, before: rows.Budget | None
) -> rows.Budget:
    kind, scope_id, tenant_id = scoped.place(connection, body.scope, before)
    tenant = _tenant(connection, tenant_id)
    together(
        lambda: _check_currency(body, tenant),
        lambda: fields.checked("amount", money.parse_counter, body.amount, tenant.currency),
        lambda: _check_thresholds(body.thresholds),
    )
    if before is None:
        before = rows.Budget(
            id=ids.new("bud"),
            tenant_id=tenant_id,
            scope_kind=kind,
            scope_id=scope_id,
            amount="",
            period=body.period,
            created_at_us=clock.now_us(),
        )
    return msgspec.structs.replace(
        before,
        amount=body.amount,
        # Under this period it may have been counted before, and not since.
        reopened_at_us=before.reopened_at_us if body.period == before.period else clock.now_us(),
        period=body.period,
        mode=body.mode,
        outage=body.outage,
        thresholds=body.thresholds,
    )


def _check_currency(body: Budget, tenant: rows.Tenant) -> None:
    if body.currency not in {None, tenant.currency}:
        raise invalid("currency", f"the tenant's currency is {tenant.currency}")


def _check_thresholds(thresholds: tuple[int, ...]) -> None:
    if list(thresholds) != sorted(set(thresholds)):
        raise invalid("thresholds", "must rise, each of them given once")


def _tenant(connection: Connection, tenant_id: str) -> rows.Tenant:
    tenant = tenants.RECORDS.one(connection, id=tenant_id)
    if tenant is None:
        raise invalid("scope", f"there is no tenant {tenant_id!r}")
    return tenant


class _Facts(msgspec.Struct, frozen=True):
    tenant: rows.Tenant
    granted: int  # counter units


def _facts(connection: Connection, row: rows.Budget) -> _Facts:
    tenant = _tenant(connection, row.tenant_id)
    found = grants.in_force(connection, clock.now_us(), budget_id=row.id)
    granted = sum(money.parse_counter(each.amount, tenant.currency) for each in found)
    return _Facts(tenant, granted)


async def _show(deps: AdminDeps, row: rows.Budget, facts: _Facts) -> BudgetView:
    tenant = facts.tenant
    span = window(row.period, ZoneInfo(tenant.timezone), clock.now_us())  # type: ignore[arg-type]
    spent, held, leased, remaining = await _standing(deps, row, facts, span)
    return BudgetView(
        id=row.id,
        tenant_id=row.tenant_id,
        scope=fields.scope_of(row.scope_kind, row.scope_id),
        amount=row.amount,
        granted=money.format_counter(facts.granted, tenant.currency),
        currency=tenant.currency,
        period=row.period,
        mode=row.mode,
        outage=row.outage,
        thresholds=row.thresholds,
        window_start=clock.rfc3339(span.start_us),
        window_end=clock.rfc3339(span.end_us),
        spent=spent,
        held=held,
        leased=leased,
        remaining=remaining,
        created_at=clock.rfc3339(row.created_at_us),
    )


async def _standing(
    deps: AdminDeps, row: rows.Budget, facts: _Facts, span: Window
) -> tuple[str, str, str, str] | tuple[None, None, None, None]:
    """(spent, held, leased, remaining): exact decimals; remaining is negative after an overrun."""
    tenant = facts.tenant
    key = account(tenant.shard, row.account_id, span.id)
    try:
        shown = await deps.account(tenant.shard, key) or Balance()
    except StoreUnavailable:
        return None, None, None, None
    cap = money.parse_counter(row.amount, tenant.currency) + facts.granted
    remaining = cap - shown.posted - shown.held - shown.leased

    def decimal(amount: int) -> str:
        return money.format_counter(amount, tenant.currency)

    return decimal(shown.posted), decimal(shown.held), decimal(shown.leased), decimal(remaining)


def _forget(connection: Connection, row: rows.Budget) -> None:
    """A budget's grants go with it."""
    grants.RECORDS.remove(connection, budget_id=row.id)


RESOURCE: Final = Resource(
    plural="budgets",
    singular="budget",
    records=budgets.RECORDS,
    body=Budget,
    view=BudgetView,
    page=scoped.ScopedPage,
    build=_build,
    show=_show,
    in_use=lambda _connection, _row: None,
    taken="a budget of this period for this scope",
    reads=Right.BUDGETS_READ,
    changes=Right.BUDGETS_CHANGE,
    facts=_facts,
    remove=_forget,
    opened=lambda deps, row, facts: opening.open_accounts(deps, facts.tenant, ((row,), ())),
)
