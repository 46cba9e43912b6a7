"""Commitments: what a tenant agreed to spend in a term. One that has begun is not changed."""

import calendar
from datetime import UTC, date, datetime
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta
from sqlalchemy import Connection, select

from billing import commitments as billing
from billing.drawdown import Sums
from billing.money import format_picos
from gateway import clock, ids
from gateway.admin import approving, fields
from gateway.admin.approving import Approving
from gateway.admin.deps import AdminDeps
from gateway.admin.operation import Filter, Operation, Page
from gateway.admin.problems import conflict, invalid, together
from gateway.admin.resource import Resource
from gateway.admin.roles import Right
from gateway.stores.sql import commitments, drafts, rows, tenants
from gateway.stores.sql.exact import require_room
from gateway.stores.sql.invoice_tables import invoices
from gateway.stores.sql.rows import plain_decimal

_EARLIEST: Final = "2020-01-01"
Percent = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,4}(\.[0-9]{1,4})?$",
        extra={"rule": 'percent of at most 4 decimals such as "12.5"'},
    ),
]
Day = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
        description="of the tenant's calendar",
        extra={"rule": "a day such as 2026-11-01"},
    ),
]


class CommitmentBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`amount` is of every whole month, quarter or year of the calendar from `first_day` on, in the
    tenant's currency; a term that it does not fill pays by its days. It holds until the next one
    of the tenant begins, or to `last_day`; one of "0" ends it. Usage of every month that it has a
    day of draws on it as a whole. Prepaid, it is charged when a term begins, and the usage that it
    pays is not; else what was not used of it is charged when the term ends. Usage beyond it is
    charged at `overage_percent` of its price. Of what is unused at most `rollover_percent` of the
    amount may be used in the next term, when the last month of the term is invoiced; the rest
    expires. A month with a commitment asks for no minimum of the billing terms. `state` left out:
    POST makes an approved one.
    """

    tenant_id: fields.Id
    amount: fields.Decimal
    term: billing.TermKind
    first_day: Day
    last_day: Day | None = None
    prepaid: bool = False
    overage_percent: Percent = "100"
    rollover_percent: Percent = "0"
    state: Literal["draft", "approved"] | None = None


class CommitmentTerm(msgspec.Struct, frozen=True, kw_only=True):
    """One term, with what issued invoices have of it. `charged`: fee, usage and true-up, less what
    had been charged before; `open`: what is neither used nor expired.
    """

    id: str
    first_day: str
    last_day: str
    committed: str
    charged: str
    used: str
    unused: str
    open: str
    overage: str


class CommitmentView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant_id: str
    amount: str
    term: str
    first_day: str
    last_day: str | None
    prepaid: bool
    overage_percent: str
    rollover_percent: str
    state: str
    created_at: str
    terms: tuple[CommitmentTerm, ...]


class CommitmentPage(Page, frozen=True, forbid_unknown_fields=True):
    tenant_id: Filter | None = None
    state: Literal["draft", "approved"] | None = None


def _build(
    connection: Connection, _deps: AdminDeps, body: CommitmentBody, before: rows.Commitment | None
) -> rows.Commitment:
    tenant = _tenant(connection, body.tenant_id)
    _check(body, tenant, connection.dialect.name)
    if before is not None and before.tenant_id != body.tenant_id:
        raise invalid("tenant_id", "a commitment stays with its tenant; make another one")
    row = rows.Commitment(
        id=ids.new("commitment") if before is None else before.id,
        tenant_id=body.tenant_id,
        amount=plain_decimal(body.amount),
        term=body.term,
        first_day=body.first_day,
        last_day=body.last_day,
        prepaid=body.prepaid,
        overage_percent=plain_decimal(body.overage_percent),
        rollover_percent=plain_decimal(body.rollover_percent),
        state=approving.written_state(body.state, before, "commitment", "commitments"),
        drafted_by=None if before is None else before.drafted_by,
        approved_by=None if before is None else before.approved_by,
        version=1 if before is None else before.version,
        created_at_us=clock.now_us() if before is None else before.created_at_us,
    )
    if before is not None and row != before:
        _check_not_begun(connection, before, tenant)
    if row.state == "approved" and row != before:
        why = _placed(connection, row, tenant)
        if why is not None:
            raise invalid("amount", why, approving.by_a_colleague("commitments"))
    return row


def _tenant(connection: Connection, tenant_id: str) -> rows.Tenant:
    """With its invoices waiting: what is agreed and what is issued do not cross."""
    if not tenants.RECORDS.exists(connection, id=tenant_id):
        raise invalid("tenant_id", f"there is no tenant {tenant_id!r}")
    return drafts.locked_tenant(connection, tenant_id)


def _check(body: CommitmentBody, tenant: rows.Tenant, dialect: str) -> None:
    together(
        lambda: fields.checked("amount", billing.check, body.amount, tenant.currency),
        lambda: fields.checked("overage_percent", billing.parse_overage, body.overage_percent),
        lambda: fields.checked("rollover_percent", billing.parse_share, body.rollover_percent),
        lambda: fields.checked("first_day", date.fromisoformat, body.first_day),
        lambda: fields.checked("last_day", date.fromisoformat, body.last_day or body.first_day),
    )
    require_room(dialect, billing.check(body.amount, tenant.currency), "the amount")
    if body.first_day < _EARLIEST:
        raise invalid("first_day", f"it is before {_EARLIEST}, when nothing could be used")
    if body.last_day is not None and body.last_day < body.first_day:
        raise invalid("last_day", f"it is before the first day, {body.first_day}")


def _placed(connection: Connection, row: rows.Commitment, tenant: rows.Tenant) -> str | None:
    """Why one person does not decide it alone. 409 where it would change a term that has begun, or
    a month that was invoiced.
    """
    others = [each for each in commitments.agreed(connection, tenant) if each.id != row.id]
    given = commitments.commitment_of(row, tenant.currency)
    before = max((e for e in others if e.first <= given.first), key=_begins, default=None)
    after = min((e for e in others if e.first > given.first), key=_begins, default=None)
    if before is not None and before.first == given.first:
        raise conflict("already_exists", f"{before.id} begins on {row.first_day} as well")
    for one, next_one in ((before, given), (given, after)):
        if one is None or next_one is None:
            continue
        if one.amount_picos and not billing.term_begins(one, next_one.first):
            raise conflict(
                "term_running",
                f"{next_one.first} is inside a {one.term} of {one.id}, and a term that was agreed "
                "is not cut short: begin on the first day of one",
            )
    invoiced = _invoiced(connection, row)
    if invoiced is not None:
        raise conflict(
            "period_invoiced",
            f"{row.first_day} is not after invoice {invoiced}: begin in a month that is on none",
        )
    return billing.odd(given, before)


def _odd(connection: Connection, row: rows.Commitment) -> str | None:
    return _placed(connection, row, drafts.locked_tenant(connection, row.tenant_id))


def _begins(each: billing.Commitment) -> date:
    return each.first


def _invoiced(connection: Connection, row: rows.Commitment) -> str | None:
    """The number of an issued invoice of its first month or of a later one."""
    of = invoices.c
    query = (
        select(of.number)
        .where(of.tenant_id == row.tenant_id, of.status == "issued", of.kind == "invoice")
        .where(of.period >= row.first_day[:7])
        .order_by(of.period)
        .limit(1)
    )
    return connection.scalar(query)


def _check_not_begun(connection: Connection, row: rows.Commitment, tenant: rows.Tenant) -> None:
    if row.state != "approved":
        return
    if row.first_day <= _today(tenant).isoformat():
        raise conflict(
            "immutable",
            f"the commitment is in force since {row.first_day} and stays as it is; a later one "
            'takes its place from the first day of a term on, one of "0" ends it, and while no '
            "invoice was issued by it, it can be deleted",
        )
    _check_not_billed(connection, row, tenant)


def _check_not_billed(connection: Connection, row: rows.Commitment, tenant: rows.Tenant) -> None:
    """What an invoice was made by is part of the books: also one that was issued early, before the
    first day.
    """
    if commitments.sums(connection, tenant.id, [each.key for each in _billable(row, tenant)]):
        raise conflict("immutable", "invoices were issued by the commitment, and it stays")


def _billable(row: rows.Commitment, tenant: rows.Tenant) -> list[billing.Term]:
    """The terms of it that an invoice may have by now: of this month as a whole."""
    mine = [commitments.commitment_of(row, tenant.currency)]
    return billing.terms(mine, _month_ends(tenant), tenant.currency)


def _today(tenant: rows.Tenant) -> date:
    now = datetime.fromtimestamp(clock.now_us() // 1_000_000, UTC)
    return now.astimezone(ZoneInfo(tenant.timezone)).date()


def _month_ends(tenant: rows.Tenant) -> date:
    """The last day of this month."""
    today = _today(tenant)
    return today.replace(day=calendar.monthrange(today.year, today.month)[1])


def _remove(connection: Connection, row: rows.Commitment) -> None:
    _check_not_billed(connection, row, drafts.locked_tenant(connection, row.tenant_id))


def _terms(connection: Connection, row: rows.Commitment) -> tuple[CommitmentTerm, ...]:
    """Those that have begun, or that an invoice was issued of."""
    tenant = tenants.RECORDS.one(connection, id=row.tenant_id)
    if tenant is None or row.state != "approved":
        return ()
    found = commitments.terms_of(connection, tenant, _month_ends(tenant))
    mine = [each for each in found if each.commitment.id == row.id]
    kept, today = (
        commitments.sums(connection, tenant.id, [each.key for each in mine]),
        _today(tenant),
    )
    shown = (each for each in mine if each.first <= today or each.key in kept)
    return tuple(_term(each, kept.get(each.key, Sums())) for each in shown)


def _term(term: billing.Term, sums: Sums) -> CommitmentTerm:
    charged = sums.fee + sums.used + sums.drawn + sums.true_up
    amounts = {
        "committed": term.committed_picos,
        "charged": charged,
        "used": sums.used,
        "unused": sums.unused,
        "open": term.committed_picos - sums.used - sums.unused,
        "overage": sums.overage,
    }
    return CommitmentTerm(
        id=term.key,
        first_day=term.first.isoformat(),
        last_day=term.last.isoformat(),
        **{name: format_picos(picos) for name, picos in amounts.items()},
    )


async def _show(
    _deps: AdminDeps, row: rows.Commitment, terms: tuple[CommitmentTerm, ...]
) -> CommitmentView:
    return CommitmentView(
        id=row.id,
        tenant_id=row.tenant_id,
        amount=row.amount,
        term=row.term,
        first_day=row.first_day,
        last_day=row.last_day,
        prepaid=row.prepaid,
        overage_percent=row.overage_percent,
        rollover_percent=row.rollover_percent,
        state=row.state,
        created_at=clock.rfc3339(row.created_at_us),
        terms=terms,
    )


RESOURCE: Final = Resource(
    plural="commitments",
    singular="commitment",
    records=commitments.RECORDS,
    body=CommitmentBody,
    view=CommitmentView,
    page=CommitmentPage,
    build=_build,
    show=_show,
    facts=_terms,
    in_use=lambda _connection, _row: None,
    taken="such a commitment",
    reads=Right.PRICES_READ,
    changes=Right.PRICES_CHANGE,
    remove=_remove,
    entails=approving.signed(commitments.RECORDS),
)


APPROVING: Final = Approving(RESOURCE, _odd)


def operations() -> list[Operation]:
    return [*RESOURCE.operations(), APPROVING.operation()]
