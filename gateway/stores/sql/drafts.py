"""Drafts: a tenant's month, made anew from the ledger as often as one likes.

A month is closed by the invoice that is issued after its end: there is no other draft of it. What
is booked of it later goes on the next invoice, with its own period.
"""

from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, Engine, select, update

from billing.drawdown import drawn
from billing.invoices import Aggregate, Draft, Minimum, charged, rounded
from billing.periods import Window, month
from billing.prices import RateCard
from billing.rating import over_booked
from billing.terms import Terms, minimum_picos
from gateway import clock, ids
from gateway.stores.sql import (
    commitments,
    coverage,
    exchange_rates,
    former_names,
    invoices,
    rate_cards,
    tenants,
    terms,
)
from gateway.stores.sql.bulk import append
from gateway.stores.sql.commitments import Drafting
from gateway.stores.sql.cost_centers import CostCenters
from gateway.stores.sql.coverage import Covered, Month, Payer, Used
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.exact import require_room, require_statable
from gateway.stores.sql.invoice_tables import invoice_lines
from gateway.stores.sql.invoice_tables import invoices as table
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.rows import Tenant
from gateway.stores.sql.tables import keys


class UnknownTenantError(LookupError):
    """No tenant has this id."""


class NotBegunError(ValueError):
    """The month lies ahead, where the tenant is."""


class PeriodClosedError(ValueError):
    """The month is invoiced as a whole. The message says where late usage goes."""


class _Part(msgspec.Struct, frozen=True):
    """One month that an invoice takes from: its own, or a closed one that more was booked of."""

    period: str
    span: Window
    terms: Terms
    closing: str | None = None  # number of the invoice that closed it


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
    issued = _issued(connection, tenant_id)
    span = _span(month(period, ZoneInfo(tenant.timezone)), period, issued)
    if span.start_us > clock.now_us():
        raise NotBegunError(f"{period} has not begun in {tenant.timezone}")
    before = _draft(connection, tenant_id, period)
    own = _Part(period, span, terms.of(connection, tenant_id).terms)
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
    parts = [own, *_closed(connection, period, issued)]
    closed = {each.period for each in issued if not each.early}
    made, covered = _made(connection, fresh, parts, tenant, closed)
    if fresh.currency != tenant.currency:
        made, fresh = exchange_rates.applied(connection, made, fresh, tenant, issued)
    return before, _store(connection, before, fresh, made, covered)


def remove_draft(engine: Engine, invoice_id: str) -> bool:
    """Whether there was such a draft. What is issued stays."""
    with transaction(engine) as connection:
        return take_back(connection, invoice_id)


def take_back(connection: Connection, invoice_id: str) -> bool:
    """The same in the caller's transaction."""
    draft = select(table.c.id).filter_by(id=invoice_id, status="draft").with_for_update()
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


def _issued(connection: Connection, tenant_id: str) -> list[Invoice]:
    query = select(table).filter_by(tenant_id=tenant_id, kind="invoice", status="issued")
    found = connection.execute(query.order_by(table.c.period, table.c.issued_at_us))
    return [Invoice(**row) for row in found.mappings()]


def _span(calendar: Window, period: str, issued: list[Invoice]) -> Window:
    """The month, or where a neighbour was invoiced in another time zone what that left of it: no
    instant is in two months or in none. PeriodClosedError where the month is invoiced as a whole.
    """
    start_us, end_us = calendar.start_us, calendar.end_us
    for each in issued:
        if each.period == period and not each.early:
            raise PeriodClosedError(
                f"{period} is closed by invoice {each.number}; what is booked of it since goes on "
                "the next month's invoice as a correction"
            )
        if each.period == period:
            return each.span
        if _next(each.period) == period:
            start_us = each.period_end_us
        elif each.period == _next(period):
            end_us = each.period_start_us
    return Window(calendar.id, start_us, end_us)


def _next(period: str) -> str:
    year, number = (int(part) for part in period.split("-"))
    return f"{year + number // 12:04d}-{number % 12 + 1:02d}"


def _closed(connection: Connection, period: str, issued: list[Invoice]) -> Iterator[_Part]:
    for each in issued:
        if not each.early and each.period < period:
            kept = invoices.terms_of(connection, each)
            yield _Part(each.period, each.span, kept, each.number)


def _made(
    connection: Connection, fresh: Invoice, parts: list[_Part], tenant: Tenant, closed: set[str]
) -> tuple[Draft, list[Covered]]:
    """In the currency of the ledger."""
    terms_agreed = commitments.terms_for(connection, tenant, fresh.period)
    committed = commitments.months_of(terms_agreed)
    months = {fresh.period: fresh.span.start_us}
    centers = CostCenters(connection, fresh.tenant_id)
    key_names = _key_names(connection, fresh.tenant_id)
    found: list[tuple[_Part, Covered]] = []
    before: list[tuple[_Part, Covered]] = []
    minimums: list[Minimum] = []
    cards: dict[str, RateCard] = {}

    def covered(part: _Part, payer: Payer, used: Used) -> tuple[_Part, Covered]:
        team = centers.team_names.get(payer.team_id, payer.team_id)
        key = key_names.get(payer.key_id, payer.key_id)
        return part, Covered(payer=payer, period=part.span, team=team, key=key, used=used)

    for part in parts:
        of = coverage.unbilled(connection, fresh.tenant_id, part.span, centers)
        cards |= rate_cards.get(connection, {payer.charge_card for payer, _ in of.both} - {*cards})
        charged_picos = _charged_picos(of, cards)
        if of.left:
            months[part.period] = part.span.start_us
        if part.period not in committed:
            minimums.append(_minimum(connection, part, charged_picos, tenant))
        found += [covered(part, payer, used) for payer, used in sorted(of.left.items())]
        before += [covered(part, *each) for each in of.taken.items() if _counts(each[0], cards)]
    lines = charged(
        (_aggregate(part, each, cards) for part, each in found),
        invoice_id=fresh.id,
        currency=tenant.currency,
        period=fresh.span,
        minimums=minimums,
        before=(_aggregate(part, each, cards) for part, each in before),
    )
    if terms_agreed:
        drafting = Drafting(fresh.period, fresh.span.end_us <= clock.now_us(), months, closed)
        standings = commitments.standings(connection, tenant, terms_agreed, drafting)
        lines = drawn(lines, standings, fresh.id)
    made = rounded(lines, invoice_id=fresh.id, currency=tenant.currency, period=fresh.span)
    return made, [each for _, each in found]


def _charged_picos(month: Month, cards: dict[str, RateCard]) -> int:
    """By the prices that the month's total decides."""
    booked = sum(used.charge_picos for _, used in month.both)
    return booked - over_booked((cards[p.charge_card], used.meters) for p, used in month.both)


def _counts(payer: Payer, cards: dict[str, RateCard]) -> bool:
    """Whether what was billed decides what more is billed at."""
    return any(rate.schedule is not None for rate in cards[payer.charge_card].rates)


def _minimum(connection: Connection, part: _Part, charged_picos: int, tenant: Tenant) -> Minimum:
    """What the month's minimum asks for beyond its usage, less what was charged for it already."""
    due = 0
    if part.span.end_us <= clock.now_us():
        agreed = minimum_picos(part.terms, part.period, tenant.currency)
        due = max(0, agreed - charged_picos) if agreed else 0
    of = invoice_lines.c
    charged = connection.scalars(
        select(of.amount_picos)
        .join(table, table.c.id == of.invoice_id)
        .where(table.c.tenant_id == tenant.id, table.c.status == "issued")
        .where(of.line_kind == "minimum", of.period_start_us == part.span.start_us)
    )
    return Minimum(picos=due - sum(charged), period=part.span, corrects_invoice=part.closing)


def _aggregate(part: _Part, each: Covered, cards: dict[str, RateCard]) -> Aggregate:
    payer = each.payer
    return Aggregate(
        cost_center=payer.cost_center,
        team=each.team,
        key=each.key,
        model=payer.model,
        backend_region=payer.region,
        provenance=payer.provenance,
        card=cards[payer.charge_card],
        meters=each.used.meters,
        charge_picos=each.used.charge_picos,
        period=part.span,
        corrects_invoice=part.closing,
    )


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


def _key_names(connection: Connection, tenant_id: str) -> dict[str, str]:
    """By id, of those that were deleted too."""
    query = select(keys.c.id, keys.c.name).where(keys.c.tenant_id == tenant_id)
    former = former_names.RECORDS.all(connection, tenant_id=tenant_id)
    named = {each.id: each.name for each in former}
    return named | {row.id: row.name for row in connection.execute(query)}
