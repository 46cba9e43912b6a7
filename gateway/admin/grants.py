"""Grants: a budget may spend more until a time, because somebody approved it and said why.

A grant is in force from the moment it is made. It ends by the clock, or is taken back; either way
what is held under it stays held, and the row stays as history. Its amount and time never change.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing import money
from gateway import clock, ids
from gateway.admin import fields, repeats
from gateway.admin.deps import AdminDeps
from gateway.admin.operation import Answer, Call, Filter, Operation, Page
from gateway.admin.problems import conflict, invalid, missing, together
from gateway.admin.resource import Resource, page, page_of, version_of
from gateway.admin.roles import Right
from gateway.stores.sql import budgets, grants, rows, tenants
from gateway.stores.sql.rows import plain_decimal
from policies.budgets import MAX_COUNTER

UNNAMED: Final = "admin token"  # who approves with it, and does not say who he is
Reason = Annotated[str, Meta(min_length=1, max_length=256)]
State = Literal["active", "expired", "revoked"]


class Allowance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A grant of the budget in the path."""

    amount: fields.Decimal
    until: fields.Instant
    reason: Reason
    approver: fields.Label = UNNAMED


class Grant(Allowance, frozen=True, forbid_unknown_fields=True, kw_only=True):
    budget_id: fields.Id


class GrantView(msgspec.Struct, frozen=True, kw_only=True):
    """`scope` and `period` are the budget's."""

    id: str
    tenant_id: str
    budget_id: str
    scope: fields.Scope
    period: str
    amount: str
    currency: str
    until: str
    approver: str
    reason: str
    state: State
    revoked_at: str | None
    created_at: str


class GrantPage(Page, frozen=True, forbid_unknown_fields=True):
    tenant_id: Filter | None = None
    budget_id: Filter | None = None


class _Of(msgspec.Struct, frozen=True):
    """What a grant is a grant of."""

    budget: rows.Budget
    currency: str


def _of(connection: Connection, budget_id: str) -> _Of | None:
    budget = budgets.RECORDS.one(connection, id=budget_id)
    tenant = tenants.RECORDS.one(connection, id=budget.tenant_id) if budget is not None else None
    return None if budget is None or tenant is None else _Of(budget, tenant.currency)


def _facts(connection: Connection, row: rows.Grant) -> _Of:
    of = _of(connection, row.budget_id)
    if of is None:
        raise missing("budget", row.budget_id)
    return of


def _build(
    connection: Connection, _deps: AdminDeps, body: Grant, before: rows.Grant | None
) -> rows.Grant:
    of = _of(connection, body.budget_id)
    if of is None:
        raise invalid("budget_id", f"there is no budget {body.budget_id!r}")
    fields.checked("amount", money.parse_counter, body.amount, of.currency)
    until_us = fields.instant(body.until, "until")
    if before is not None:
        return _corrected(body, before, until_us)
    now_us = clock.now_us()
    together(
        lambda: _check_amount(connection, body, of, now_us),
        lambda: _check_until(until_us, now_us),
    )
    return rows.Grant(
        id=ids.new("grant"),
        tenant_id=of.budget.tenant_id,
        budget_id=of.budget.id,
        amount=plain_decimal(body.amount),
        until_us=until_us,
        approver=body.approver,
        reason=body.reason,
        created_at_us=now_us,
    )


def _corrected(body: Grant, before: rows.Grant, until_us: int) -> rows.Grant:
    same = (body.budget_id, plain_decimal(body.amount), until_us)
    if same != (before.budget_id, before.amount, before.until_us):
        raise conflict(
            "immutable", "what was granted does not change: take it back and make another grant"
        )
    return msgspec.structs.replace(before, approver=body.approver, reason=body.reason)


def _check_until(until_us: int, now_us: int) -> None:
    if until_us <= now_us:
        raise invalid("until", "this is in the past")


def _check_amount(connection: Connection, body: Grant, of: _Of, now_us: int) -> None:
    """Together with all else that is in force it must still be counted exactly."""
    counted = money.parse_counter(body.amount, of.currency)
    if counted <= 0:
        raise invalid("amount", "a grant of nothing grants nothing")
    others = grants.in_force(connection, now_us, budget_id=of.budget.id)
    amounts = (of.budget.amount, *(each.amount for each in others))
    total = counted + sum(money.parse_counter(each, of.currency) for each in amounts)
    if total > MAX_COUNTER:
        most = money.format_counter(MAX_COUNTER, of.currency)
        raise invalid("amount", f"with it the budget would be above {most}, the most there can be")


async def _show(_deps: AdminDeps, row: rows.Grant, of: _Of) -> GrantView:
    return GrantView(
        id=row.id,
        tenant_id=row.tenant_id,
        budget_id=row.budget_id,
        scope=fields.scope_of(of.budget.scope_kind, of.budget.scope_id),
        period=of.budget.period,
        amount=row.amount,
        currency=of.currency,
        until=clock.rfc3339(row.until_us),
        approver=row.approver,
        reason=row.reason,
        state=_state(row, clock.now_us()),
        revoked_at=fields.shown_instant(row.revoked_at_us),
        created_at=clock.rfc3339(row.created_at_us),
    )


def _state(row: rows.Grant, now_us: int) -> State:
    if row.revoked_at_us is not None:
        return "revoked"
    return "active" if now_us < row.until_us else "expired"


async def _take_back(call: Call) -> Answer:
    def work(connection: Connection) -> None:
        row = RESOURCE.row(connection, call)
        call.require_version(version_of(row))
        if row.revoked_at_us is None:
            ended = msgspec.structs.replace(
                row, revoked_at_us=clock.now_us(), version=row.version + 1
            )
            call.changed(connection, "grants", row, ended)
            grants.RECORDS.replace(connection, ended)

    await call.change(work)
    return Answer()


async def _list_of(call: Call) -> Answer:
    def work(connection: Connection) -> tuple[tuple[rows.Grant, ...], _Of]:
        of = _budget_in_path(connection, call)
        after, size = call.query.cursor, call.query.limit
        descending = call.query.descending
        where = {"budget_id": call.id}
        found = grants.RECORDS.page(connection, where, after, size + 1, descending=descending)
        return found, of

    found, of = await call.read(work)
    size = call.query.limit
    items = [await _show(call.deps, row, of) for row in found[:size]]
    return Answer(page(items, found, size))


async def _grant(call: Call) -> Answer:
    allowed = call.body(Allowance)

    def work(connection: Connection) -> tuple[rows.Grant, _Of]:
        of = _budget_in_path(connection, call)
        made = repeats.made_before(call, connection)
        known = None if made is None else grants.RECORDS.one(connection, id=made)
        if known is not None:
            return known, of
        body = Grant(**msgspec.structs.asdict(allowed), budget_id=call.id)
        row = _build(connection, call.deps, body, None)
        call.changed(connection, "grants", None, row)
        grants.RECORDS.add(connection, row)
        repeats.keep(call, connection, row.id)
        return row, of

    row, of = await call.change(work)
    view = await _show(call.deps, row, of)
    return Answer(view, version_of(row), f"/admin/v1/grants/{row.id}")


def _budget_in_path(connection: Connection, call: Call) -> _Of:
    of = _of(connection, call.id)
    if of is None:
        raise missing("budget", call.id)
    return of


RESOURCE: Final = Resource(
    plural="grants",
    singular="grant",
    records=grants.RECORDS,
    body=Grant,
    view=GrantView,
    page=GrantPage,
    build=_build,
    show=_show,
    in_use=lambda _connection, _row: None,
    taken="such a grant",
    reads=Right.BUDGETS_READ,
    changes=Right.GRANTS_CHANGE,
    facts=_facts,
)


def operations() -> list[Operation]:
    kept = [each for each in RESOURCE.operations() if each.method != "DELETE"]
    path = "/budgets/{id}/grants"
    return [
        *kept,
        Operation(
            "DELETE", "/grants/{id}", "grants", "Take a grant back; it stays as history",
            _take_back, right=Right.GRANTS_CHANGE, status=204, if_match=True, refusals=(404, 412),
        ),
        Operation(
            "GET", path, "budgets", "List the grants of a budget", _list_of,
            right=Right.BUDGETS_READ, query=Page, answers=page_of(GrantView), refusals=(404,),
        ),
        Operation(
            "POST", path, "budgets", "Let the budget spend more until a time", _grant,
            right=Right.GRANTS_CHANGE, status=201, body=Allowance, answers=GrantView, etag=True,
            repeatable=True, refusals=(404, 422),
        ),
    ]  # fmt: skip
