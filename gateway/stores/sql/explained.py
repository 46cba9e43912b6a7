"""From an invoice's line to the requests behind it, and from a request to the invoice it is on.

What an invoice has of a month is told by when it was booked (`taken_spans`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, tuple_

from billing.discounts import is_discounted
from billing.drawdown import booked
from billing.invoices import OF_USAGE, InvoiceLine
from billing.meters import Meter
from billing.prices import RateCard, rate_of
from billing.quantity import whole_version
from gateway.stores.sql import coverage, rate_cards, taken_spans
from gateway.stores.sql.cost_centers import CostCenters
from gateway.stores.sql.coverage import Covered, Payer
from gateway.stores.sql.exact import exact_sum, whole
from gateway.stores.sql.invoice_tables import invoice_lines, invoice_usage, invoices
from gateway.stores.sql.invoices import Invoice, lines_of
from gateway.stores.sql.tables import usage_rows
from gateway.stores.sql.taken_spans import has
from gateway.stores.sql.usage_requests import Attempt, attempt_of

Cursor = tuple[int, str]  # admission and id of the last event of a page
_ALL_TOKENS: Final = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
)


class Change(msgspec.Struct, frozen=True):
    """What stands between bookings and what is billed for them, by its cause."""

    cause: str  # other_steps | quantity_tiers, or the kind of a line
    picos: int
    quantity: int = 0  # tokens, of what is on the lines of other steps


class Behind(msgspec.Struct, frozen=True, kw_only=True):
    """The usage rows behind an invoice or one of its lines, what they were booked at, and what the
    invoice made of that. Changes are read from the invoice's lines, never taken for a difference:
    `adds_up` says whether bookings and changes come to what is billed, exactly.
    """

    where: ColumnElement[bool]
    events: int
    quantity: int
    amount_picos: int
    booked_at: int | None = None  # picos per token, of a line whose price the total decides
    changes: tuple[Change, ...] = ()
    billed_quantity: int | None = None  # tokens on all lines with these rows; None: not compared
    billed_picos: int = 0  # in the currency of the ledger

    @property
    def adds_up(self) -> bool:
        if self.billed_quantity not in (None, self.quantity):
            return False
        return self.amount_picos + sum(each.picos for each in self.changes) == self.billed_picos


def behind(connection: Connection, invoice: Invoice, line: InvoiceLine | None) -> Behind:
    """Of the line, or of all usage that the invoice has."""
    covered = [each for _, each in coverage.of(connection, [invoice.id])]
    cards = rate_cards.get(connection, coverage.cards(connection, invoice, covered))
    booked_at = _dearest(cards.values())
    if line is None:
        where = or_(False, *_of_months(connection, invoice, covered))
        found = Behind(**_summed(connection, where, None, 0))
        changes, billed_picos = _whole(lines_of(connection, invoice.id), booked_at)
        return replace(found, changes=changes, billed_picos=billed_picos)
    plain = booked(line)
    mine = [each for each in covered if _is_of(each, plain, cards)]
    where = or_(False, *_of_payers(connection, invoice, mine))
    if line.meter:
        where = and_(where, usage_rows.c[f"{line.meter}_tokens"] != 0)
    dearest = booked_at.get(whole_version(plain.price_version))
    price = plain.picos_per_token if dearest is None else dearest
    found = Behind(**_summed(connection, where, line, price), billed_picos=line.amount_picos)
    if line.line_kind not in OF_USAGE:
        return replace(found, changes=(Change(line.line_kind, line.amount_picos),))
    on_all = _of_all_steps(connection, invoice, plain, is_tiered=dearest is not None)
    if dearest is None and on_all == line.quantity and plain == line:
        return replace(found, billed_quantity=line.quantity)
    changes = _of_step(line, price, on_all)
    return replace(found, booked_at=price, billed_quantity=on_all, changes=changes)


def _dearest(cards: Iterable[RateCard]) -> dict[str, int]:
    """What tokens were booked at, by the price version that a month's total decides."""
    return {
        rate.version: rate.picos_per_token
        for card in cards
        for rate in card.rates
        if rate.schedule is not None
    }


def _of_step(line: InvoiceLine, booked_at: int, on_all: int) -> tuple[Change, ...]:
    elsewhere, plain = line.quantity - on_all, booked(line)
    causes = (
        Change("other_steps", elsewhere * booked_at, elsewhere),
        Change("quantity_tiers", line.quantity * (plain.picos_per_token - booked_at)),
        Change("overage", line.amount_picos - plain.amount_picos),
    )
    return tuple(each for each in causes if each.picos)


def _whole(
    lines: Iterable[InvoiceLine], booked_at: Mapping[str, int]
) -> tuple[tuple[Change, ...], int]:
    """What tiers, minimums, credits and rounding make of an invoice's usage, and the lines' sum."""
    changes: dict[str, int] = {}
    billed = 0
    for line in lines:
        billed += line.amount_picos
        found = {str(line.line_kind): line.amount_picos}
        if line.line_kind in OF_USAGE:
            plain = booked(line)
            price = plain.picos_per_token
            dearest = booked_at.get(whole_version(plain.price_version), price)
            found = {
                "quantity_tiers": line.quantity * (price - dearest),
                "overage": line.amount_picos - plain.amount_picos,
            }
        for cause, picos in found.items():
            changes[cause] = changes.get(cause, 0) + picos
    return tuple(Change(cause, picos) for cause, picos in changes.items() if picos), billed


def _of_all_steps(
    connection: Connection, invoice: Invoice, plain: InvoiceLine, *, is_tiered: bool
) -> int:
    """Tokens of a payer on all steps of one price, within commitments and beyond."""
    same = ("meter", "cost_center", "team", "key", "model", "backend_region", "provenance")
    of = invoice_lines.c
    query = (
        select(*(of[name] for name in InvoiceLine.__struct_fields__))
        .where(of.invoice_id == invoice.id, of.period_start_us == plain.period_start_us)
        .where(of.line_kind.in_(OF_USAGE))
        .where(*(of[name] == getattr(plain, name) for name in same))
    )
    lines = (booked(InvoiceLine(**row)) for row in connection.execute(query).mappings())
    return sum(each.quantity for each in lines if _is_step(each, plain, is_tiered=is_tiered))


def _is_step(each: InvoiceLine, plain: InvoiceLine, *, is_tiered: bool) -> bool:
    if not is_tiered:
        named = ("price_version", "picos_per_token", "list_picos_per_token")
        return all(getattr(each, name) == getattr(plain, name) for name in named)
    whole_one = whole_version(plain.price_version)
    if whole_version(each.price_version) != whole_one:
        return False
    # Of a discount every step has its own price in the list.
    return is_discounted(whole_one) or each.list_picos_per_token == plain.list_picos_per_token


def events(
    connection: Connection, found: Behind, after: Cursor | None, limit: int
) -> list[Attempt]:
    """In the order of their admission, from after the cursor."""
    of = usage_rows.c
    query = select(usage_rows).where(found.where).order_by(of.admitted_at_us, of.event_id)
    if after is not None:
        query = query.where(tuple_(of.admitted_at_us, of.event_id) > after)
    return [attempt_of(row) for row in connection.execute(query.limit(limit)).mappings()]


def part_of(event: Attempt, line: InvoiceLine | None, booked_at: int | None) -> tuple[int, int]:
    """Tokens and picos of a booking that are of the line of usage, which was `booked_at` so many
    picos a token; of all meters without one.
    """
    if line is None:
        return event.usage.total, event.charge_picos
    quantity = event.usage.of(Meter(line.meter))
    return quantity, quantity * (line.picos_per_token if booked_at is None else booked_at)


def billed_by(connection: Connection, attempts: Sequence[Attempt]) -> dict[str, str]:
    """Numbers of issued invoices by event id; what is on none yet, or never will be, is absent."""
    won = [each for each in attempts if each.winner]
    if not won:
        return {}
    of = invoice_usage.c
    span = (min(each.admitted_at_us for each in won), max(each.admitted_at_us for each in won))
    found = connection.execute(
        select(invoices.c.tenant_id, invoices.c.number, invoice_usage)
        .join(invoices, invoices.c.id == of.invoice_id)
        .where(invoices.c.status == "issued")
        .where(invoices.c.tenant_id.in_({each.tenant_id for each in won}))
        .where(of.key_id.in_({each.key_id for each in won}))
        .where(of.period_start_us <= span[1], of.period_end_us > span[0])
        .order_by(invoices.c.issued_at_us)
    ).all()
    months = {(row.tenant_id, row.period_start_us) for row in found}
    took = {month: taken_spans.of_month(connection, *month) for month in months}
    numbers = {
        each.event_id: [
            row.number
            for row in found
            if _is_like(row, each)
            and has(took[row.tenant_id, row.period_start_us][row.invoice_id], each.recorded_at_us)
        ]
        for each in won
    }
    return {event_id: by[0] for event_id, by in numbers.items() if by}


def _is_like(row: Any, event: Attempt) -> bool:
    """Whether this row of coverage is of the event's payer and month."""
    same = ("tenant_id", "team_id", "key_id", "model", "region", "provenance", "charge_card")
    return (
        all(getattr(row, name) == getattr(event, name) for name in same)
        and row.period_start_us <= event.admitted_at_us < row.period_end_us
    )


def _is_of(covered: Covered, line: InvoiceLine, cards: dict[str, RateCard]) -> bool:
    payer = covered.payer
    if line.line_kind != "usage" or covered.period.start_us != line.period_start_us:
        return False
    rate = rate_of(cards[payer.charge_card], Meter(line.meter))
    if rate is None:
        return False
    of_steps = rate.schedule is not None and is_discounted(rate.version)
    if not of_steps and rate.list_picos != line.list_picos_per_token:
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
    of, recorded = usage_rows.c, dict[int, ColumnElement[bool]]()
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
        start_us = each.period.start_us
        if start_us not in recorded:
            recorded[start_us] = taken_spans.booked(connection, invoice, start_us)
        mine = _booked(invoice, each, recorded[start_us])
        yield and_(*mine, or_(False, *spans), *same)


def _of_months(
    connection: Connection, invoice: Invoice, covered: Iterable[Covered]
) -> Iterator[ColumnElement[bool]]:
    for start_us, each in {each.period.start_us: each for each in covered}.items():
        recorded = taken_spans.booked(connection, invoice, start_us)
        yield and_(*_booked(invoice, each, recorded))


def _booked(
    invoice: Invoice, covered: Covered, recorded: ColumnElement[bool]
) -> Iterator[ColumnElement[bool]]:
    """Of the month and the tenant, and what the invoice took of that."""
    of = usage_rows.c
    yield of.tenant_id == invoice.tenant_id
    yield of.winner
    yield of.admitted_at_us >= covered.period.start_us
    yield of.admitted_at_us < covered.period.end_us
    yield recorded


def _summed(
    connection: Connection, where: ColumnElement[bool], line: InvoiceLine | None, price: int
) -> dict[str, Any]:
    of = usage_rows.c
    names = _ALL_TOKENS if line is None or not line.meter else (f"{line.meter}_tokens",)
    tokens = [func.coalesce(func.sum(of[name]), 0) for name in names]
    high, low = exact_sum(connection.dialect.name, of.charge_picos)
    count, *sums, high, low = connection.execute(
        select(func.count(), *tokens, high, low).where(where)
    ).one()
    quantity = sum(int(each) for each in sums)
    amount = whole(high, low) if line is None else quantity * price
    return {"where": where, "events": int(count), "quantity": quantity, "amount_picos": amount}
