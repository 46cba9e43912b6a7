"""Drafts: a tenant's month, made anew from the ledger as often as one likes. Of a month that is
closed there is no other draft.
"""

from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, Engine, select, update

from billing.invoices import Draft, rounded
from billing.periods import month
from gateway import clock, ids
from gateway.stores.sql import (
    coverage,
    draft_lines,
    exchange_rates,
    invoices,
    tenants,
    terms,
)
from gateway.stores.sql.bulk import append
from gateway.stores.sql.coverage import Covered
from gateway.stores.sql.draft_lines import Before, Part
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.exact import require_room, require_statable
from gateway.stores.sql.invoice_tables import invoice_lines
from gateway.stores.sql.invoice_tables import invoices as table
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.rows import Tenant


class UnknownTenantError(LookupError):
    """No tenant has this id."""


class NotBegunError(ValueError):
    """The month lies ahead, where the tenant is."""


def make_draft(
    engine: Engine, tenant_id: str, period: str, drafted_by: str | None = None
) -> tuple[Invoice, bool]:
    """The draft of a tenant and month made anew from the ledger, and whether it is a first one.

    UnknownTenantError; NotBegunError; PeriodClosedError; NoRateError; TooLargeError; ValueError
    for a period not written `2026-11`; UnbalancedError when the ledger contradicts itself. A draft
    that comes out the same keeps its version.
    """
    with transaction(engine) as connection:
        before, after = refresh(connection, tenant_id, period, drafted_by)
        return after, before is None


def refresh(
    connection: Connection, tenant_id: str, period: str, drafted_by: str | None = None
) -> tuple[Invoice | None, Invoice]:
    """The same in the caller's transaction: the draft as it was, if there was one, and as it is.
    Without `drafted_by` it stays whose it was.
    """
    tenant = locked_tenant(connection, tenant_id)
    issued = draft_lines.issued(connection, tenant_id)
    kept = draft_lines.with_spans(connection, tenant_id, issued)
    span = draft_lines.span(month(period, ZoneInfo(tenant.timezone)), period, kept)
    if span.start_us > clock.now_us():
        raise NotBegunError(f"{period} has not begun in {tenant.timezone}")
    before = _draft(connection, tenant_id, period)
    own = Part(period, span, terms.of(connection, tenant_id).terms)
    fresh = Invoice(
        id=ids.new("inv") if before is None else before.id,
        tenant_id=tenant_id,
        period=period,
        currency=own.terms.currency or tenant.currency,
        period_start_us=span.start_us,
        period_end_us=span.end_us,
        total_minor=0,
        created_at_us=clock.now_us() if before is None else before.created_at_us,
        drafted_by=drafted_by,
    )
    parts = [own, *draft_lines.late_parts(connection, period, issued)]
    after = Before(closed=draft_lines.closed(issued), over_by_us=clock.now_us())
    found = draft_lines.made(connection, tenant, fresh.id, parts, after)
    made = rounded(found.lines, invoice_id=fresh.id, currency=tenant.currency, period=span)
    if fresh.currency != tenant.currency:
        made, fresh = exchange_rates.applied(connection, made, fresh, tenant, issued)
    return before, _store(connection, before, fresh, made, found.covered)


def remove_draft(engine: Engine, invoice_id: str) -> bool:
    """Whether there was such a draft. What is issued stays."""
    with transaction(engine) as connection:
        return take_back(connection, invoice_id)


def take_back(connection: Connection, invoice_id: str) -> bool:
    """The same in the caller's transaction. Whoever issues it meanwhile is waited for."""
    tenant_id = connection.scalar(select(table.c.tenant_id).filter_by(id=invoice_id))
    if tenant_id is None:
        return False
    locked_tenant(connection, tenant_id)
    draft = select(table.c.id).filter_by(id=invoice_id, status="draft")
    if connection.scalar(draft) is None:
        return False
    connection.execute(invoice_lines.delete().filter_by(invoice_id=invoice_id))
    coverage.store(connection, invoice_id, [])
    connection.execute(table.delete().filter_by(id=invoice_id))
    return True


def locked_tenant(connection: Connection, tenant_id: str) -> Tenant:
    """Whoever drafts, issues or credits for one tenant waits for the others. SQLite has one writer
    anyway.
    """
    query = select(tenants.RECORDS.table).filter_by(id=tenant_id).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise UnknownTenantError(tenant_id)
    return tenants.RECORDS.row(row)


def _draft(connection: Connection, tenant_id: str, period: str) -> Invoice | None:
    query = select(table).filter_by(
        tenant_id=tenant_id, period=period, status="draft", kind="invoice"
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else Invoice(**row)


def _store(
    connection: Connection,
    before: Invoice | None,
    fresh: Invoice,
    made: Draft,
    covered: list[Covered],
) -> Invoice:
    _require_room(connection.dialect.name, made, covered)
    require_statable(made.total_minor, fresh.currency, f"the invoice of {fresh.period}")
    for line in made.lines:
        require_statable(line.amount_minor, fresh.currency, f"the {line.line_kind} line")
    fresh = replace(fresh, total_minor=made.total_minor)
    if before is None:
        connection.execute(table.insert().values(**msgspec.structs.asdict(fresh)))
    else:
        same = replace(fresh, version=before.version, drafted_by=before.drafted_by)
        if same == before and _is_stored(connection, before.id, made, covered):
            return before
        author = fresh.drafted_by or before.drafted_by
        fresh = replace(fresh, version=before.version + 1, drafted_by=author)
        values = msgspec.structs.asdict(fresh)
        connection.execute(update(table).where(table.c.id == before.id).values(**values))
        connection.execute(invoice_lines.delete().filter_by(invoice_id=before.id))
    append(connection, invoice_lines, _rows(fresh.id, made))
    coverage.store(connection, fresh.id, covered)
    return fresh


def _require_room(dialect: str, made: Draft, covered: list[Covered]) -> None:
    for line in made.lines:
        named = f"{line.meter} of {line.model} by key {line.key} of team {line.team}"
        require_room(dialect, line.amount_picos, f"the {line.line_kind} line: {named}")
    for each in covered:
        named = f"{each.payer.model} by key {each.key} of team {each.team}"
        require_room(dialect, each.used.charge_picos, f"the usage of {named}")


def _is_stored(
    connection: Connection, invoice_id: str, made: Draft, covered: list[Covered]
) -> bool:
    query = select(invoice_lines).where(invoice_lines.c.invoice_id == invoice_id)
    stored = connection.execute(query.order_by(invoice_lines.c.position))
    if [tuple(row) for row in stored] != _rows(invoice_id, made):
        return False
    return coverage.is_stored(connection, invoice_id, covered)


def _rows(invoice_id: str, made: Draft) -> list[tuple[Any, ...]]:
    return [
        (invoice_id, position, *(getattr(line, name) for name in invoices.LINE_COLUMNS))
        for position, line in enumerate(made.lines, start=1)
    ]
