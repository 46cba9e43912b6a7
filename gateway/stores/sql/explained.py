"""From an invoice's line to the requests behind it, and from a request to the invoice it is on.

What an invoice has of a month was booked by the time it was issued, and after whatever was issued
of that month before: bookings wait while one is issued.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select, tuple_

from billing.invoices import InvoiceLine
from billing.meters import Meter
from billing.prices import RateCard, rate_of
from billing.quantity import whole_version
from gateway.stores.sql import coverage, rate_cards
from gateway.stores.sql.cost_centers import CostCenters
from gateway.stores.sql.coverage import Covered, Payer
from gateway.stores.sql.exact import exact_sum, whole
from gateway.stores.sql.invoice_tables import invoice_lines, invoice_usage, invoices
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.tables import usage_rows
from gateway.stores.sql.usage_requests import Attempt, attempt_of

Cursor = tuple[int, str]  # admission and id of the last event of a page
_ALL_TOKENS: Final = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
)


class Behind(msgspec.Struct, frozen=True):
    """The usage rows behind an invoice or one of its lines, and what they come to. Where a month's
    total decides the price that is what they were booked at, and the lines of a payer's steps have
    the same rows behind them.
    """

    where: ColumnElement[bool]
    events: int
    quantity: int
    amount_picos: int
    booked_at: int | None = None  # picos per token, of a line whose price the total decides
    in_steps: bool = False  # some price of the invoice is decided by a total


def line_of(connection: Connection, invoice: Invoice, line_id: str) -> InvoiceLine | None:
    columns = (invoice_lines.c[name] for name in InvoiceLine.__struct_fields__)
    query = select(*columns).filter_by(invoice_id=invoice.id, line_id=line_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else InvoiceLine(**row)


def behind(connection: Connection, invoice: Invoice, line: InvoiceLine | None) -> Behind:
    """Of the line, or of all usage that the invoice has."""
    covered = [each for _, each in coverage.of(connection, [invoice.id])]
    cards = rate_cards.get(connection, {each.payer.charge_card for each in covered})
    if line is None:
        where = or_(False, *_of_months(connection, invoice, covered))
        in_steps = any(rate.schedule for card in cards.values() for rate in card.rates)
        return replace(_summed(connection, where, None, 0), in_steps=in_steps)
    mine = [each for each in covered if _is_of(each, line, cards)]
    where = or_(False, *_of_payers(connection, invoice, mine))
    tokens = usage_rows.c[f"{line.meter}_tokens"] if line.meter else None
    if tokens is not None:
        where = and_(where, tokens != 0)
    booked_at = _booked_at(line, mine, cards)
    price = line.picos_per_token if booked_at is None else booked_at
    return replace(_summed(connection, where, line, price), booked_at=booked_at)


def _booked_at(
    line: InvoiceLine, covered: Iterable[Covered], cards: Mapping[str, RateCard]
) -> int | None:
    for each in covered:
        rate = rate_of(cards[each.payer.charge_card], Meter(line.meter))
        if rate is not None and rate.schedule is not None:
            return rate.picos_per_token
    return None


def adds_up(
    connection: Connection, invoice: Invoice, line: InvoiceLine | None, found: Behind
) -> bool:
    """Whether the usage found comes to the line, or to all usage that the invoice has, exactly."""
    if line is not None and found.booked_at is not None:
        return found.quantity == _of_all_steps(connection, invoice, line)
    if found.in_steps:
        covered = [each for _, each in coverage.of(connection, [invoice.id])]
        return found.amount_picos == sum(each.used.charge_picos for each in covered)
    if line is not None:
        mine = line.line_kind == "usage"
        return (found.quantity, found.amount_picos) == (
            (line.quantity, line.amount_picos) if mine else (0, 0)
        )
    high, low = exact_sum(connection.dialect.name, invoice_lines.c.amount_picos)
    usage = select(high, low).filter_by(invoice_id=invoice.id, line_kind="usage")
    return found.amount_picos == whole(*connection.execute(usage).one())


def _of_all_steps(connection: Connection, invoice: Invoice, line: InvoiceLine) -> int:
    """Tokens of a payer on all steps of one price."""
    same = ("meter", "cost_center", "team", "key", "model", "backend_region", "provenance")
    of = invoice_lines.c
    found = connection.execute(
        select(of.price_version, of.quantity)
        .where(of.invoice_id == invoice.id, of.period_start_us == line.period_start_us)
        .where(*(of[name] == getattr(line, name) for name in same))
        .where(of.list_picos_per_token.is_not_distinct_from(line.list_picos_per_token))
    )
    whole_one = whole_version(line.price_version)
    return sum(quantity for name, quantity in found if whole_version(name) == whole_one)


def events(
    connection: Connection, found: Behind, after: Cursor | None, limit: int
) -> list[Attempt]:
    """In the order of their admission, from after the cursor."""
    of = usage_rows.c
    query = select(usage_rows).where(found.where).order_by(of.admitted_at_us, of.event_id)
    if after is not None:
        query = query.where(tuple_(of.admitted_at_us, of.event_id) > after)
    return [attempt_of(row) for row in connection.execute(query.limit(limit)).mappings()]


def billed_by(connection: Connection, attempts: Sequence[Attempt]) -> dict[str, str]:
    """Numbers of issued invoices by event id; what is on none yet, or never will be, is absent."""
    won = [each for each in attempts if each.winner]
    if not won:
        return {}
    of = invoice_usage.c
    span = (min(each.admitted_at_us for each in won), max(each.admitted_at_us for each in won))
    found = connection.execute(
        select(invoices.c.tenant_id, invoices.c.number, invoices.c.issued_at_us, invoice_usage)
        .join(invoices, invoices.c.id == of.invoice_id)
        .where(invoices.c.status == "issued")
        .where(invoices.c.tenant_id.in_({each.tenant_id for each in won}))
        .where(of.key_id.in_({each.key_id for each in won}))
        .where(of.period_start_us <= span[1], of.period_end_us > span[0])
        .order_by(invoices.c.issued_at_us)
    ).all()
    numbers = {each.event_id: [row.number for row in found if _bills(row, each)] for each in won}
    return {event_id: by[0] for event_id, by in numbers.items() if by}


def _bills(row: Any, event: Attempt) -> bool:
    """Whether the invoice of this row of coverage took the event."""
    same = ("tenant_id", "team_id", "key_id", "model", "region", "provenance", "charge_card")
    return (
        all(getattr(row, name) == getattr(event, name) for name in same)
        and row.period_start_us <= event.admitted_at_us < row.period_end_us
        and event.recorded_at_us <= row.issued_at_us
    )


def _is_of(covered: Covered, line: InvoiceLine, cards: dict[str, RateCard]) -> bool:
    payer = covered.payer
    if line.line_kind != "usage" or covered.period.start_us != line.period_start_us:
        return False
    rate = rate_of(cards[payer.charge_card], Meter(line.meter))
    if rate is None or rate.list_picos != line.list_picos_per_token:
        return False
    if rate.schedule is not None:
        if rate.version != whole_version(line.price_version):
            return False
    elif (rate.version, rate.picos_per_token) != (line.price_version, line.picos_per_token):
        return False
    names = (payer.cost_center, covered.team, covered.key)
    what = (payer.model, payer.region, payer.provenance)
    return (names, what) == (
        (line.cost_center, line.team, line.key),
        (line.model, line.backend_region, line.provenance),
    )


def _of_payers(
    connection: Connection, invoice: Invoice, covered: Iterable[Covered]
) -> Iterator[ColumnElement[bool]]:
    centers = CostCenters(connection, invoice.tenant_id)
    of = usage_rows.c
    for each in covered:
        payer = each.payer
        same = [
            of[name] == getattr(payer, name)
            for name in Payer.__struct_fields__
            if name != "cost_center"
        ]
        spans = [
            and_(of.admitted_at_us >= start_us, of.admitted_at_us < end_us)
            for start_us, end_us in centers.spans(each.period.start_us, each.period.end_us)
            if centers.at(payer.team_id, start_us) == payer.cost_center
        ]
        yield and_(*_booked(connection, invoice, each), or_(False, *spans), *same)


def _of_months(
    connection: Connection, invoice: Invoice, covered: Iterable[Covered]
) -> Iterator[ColumnElement[bool]]:
    for each in {each.period.start_us: each for each in covered}.values():
        yield and_(*_booked(connection, invoice, each))


def _booked(
    connection: Connection, invoice: Invoice, covered: Covered
) -> Iterator[ColumnElement[bool]]:
    """Of the month and the tenant, and between the invoice before this one and this one."""
    of = usage_rows.c
    yield of.tenant_id == invoice.tenant_id
    yield of.winner
    yield of.admitted_at_us >= covered.period.start_us
    yield of.admitted_at_us < covered.period.end_us
    before = _before_us(connection, invoice, covered)
    if before is not None:
        yield of.recorded_at_us > before
    if invoice.issued_at_us is not None:
        yield of.recorded_at_us <= invoice.issued_at_us


def _before_us(connection: Connection, invoice: Invoice, covered: Covered) -> int | None:
    """When the last invoice before this one that has anything of the month was issued."""
    of, start_us = invoices.c, covered.period.start_us
    takes = exists().where(
        invoice_usage.c.invoice_id == of.id, invoice_usage.c.period_start_us == start_us
    )
    query = (
        select(func.max(of.issued_at_us))
        .where(of.tenant_id == invoice.tenant_id, of.kind == "invoice", of.id != invoice.id)
        .where(of.issued_at_us.is_not(None), or_(of.period_start_us == start_us, takes))
    )
    if invoice.issued_at_us is None:
        query = query.where(of.status == "issued")
    else:
        query = query.where(of.issued_at_us < invoice.issued_at_us).where(
            or_(of.voided_at_us.is_(None), of.voided_at_us > invoice.issued_at_us)
        )
    found = connection.scalar(query)
    return None if found is None else int(found)


def _summed(
    connection: Connection, where: ColumnElement[bool], line: InvoiceLine | None, price: int
) -> Behind:
    of = usage_rows.c
    names = _ALL_TOKENS if line is None or not line.meter else (f"{line.meter}_tokens",)
    tokens = [func.coalesce(func.sum(of[name]), 0) for name in names]
    high, low = exact_sum(connection.dialect.name, of.charge_picos)
    count, *sums, high, low = connection.execute(
        select(func.count(), *tokens, high, low).where(where)
    ).one()
    quantity = sum(int(each) for each in sums)
    amount = whole(high, low) if line is None else quantity * price
    return Behind(where, int(count), quantity, amount)
