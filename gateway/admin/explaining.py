"""From an invoice, or one of its lines, to the requests behind it."""

from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.invoices import OF_USAGE, InvoiceLine
from billing.money import format_minor, format_picos
from billing.prices import amount_per_million
from gateway import clock
from gateway.admin.invoices import found_in
from gateway.admin.operation import Answer, Call, Operation, PageSize
from gateway.admin.problems import invalid
from gateway.admin.requests import RequestCursor
from gateway.admin.roles import Right
from gateway.stores.sql import explained, invoices
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.usage_requests import Attempt

LineId = Annotated[str, Meta(min_length=1, max_length=64)]


class BehindQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`line_id`: or the line's number, as the page of the invoice has it."""

    line_id: LineId | None = None
    limit: PageSize = 50
    cursor: RequestCursor | None = None


class BehindItem(msgspec.Struct, frozen=True, kw_only=True):
    """One booking of an answered request. Quantity and amount are of the line, where one is named,
    else of all tokens; negative where an estimate was taken back.
    """

    request_id: str
    admitted_at: str
    recorded_at: str
    team_id: str
    key_id: str
    model: str
    provenance: str
    hold: str
    quantity: int
    amount: str


class BehindChange(msgspec.Struct, frozen=True, kw_only=True):
    """What stands between bookings and what is billed. `other_steps`: tokens of the same requests
    that the lines of other steps have, or those on the other side of a commitment's end;
    `quantity_tiers`: what the month's total makes cheaper than it was booked; `overage`: what usage
    beyond a commitment costs more or less; any other: what lines of that kind add.
    """

    cause: str
    quantity: int
    amount: str


class BehindPage(msgspec.Struct, frozen=True, kw_only=True):
    """Prices and amounts are in the tenant's currency, as they were rated, whatever the invoice is
    in. `quantity` and `amount` are of all bookings, on all pages, as they were booked: where a
    month's total decides the price at `booked_at_per_million`, and the lines of all its steps have
    the same requests behind them. `changes` are what the invoice made of that, and `billed` is what
    the line says, or all lines. `adds_up`: amount and changes come to billed exactly. Drafts that
    usage was booked after do not add up until they are refreshed; what is no usage is 0 requests.
    """

    invoice_id: str
    number: str | None
    line_id: str | None
    currency: str
    meter: str | None
    unit_price_per_million: str | None
    price_version: str | None
    booked_at_per_million: str | None = None
    requests: int
    quantity: int
    amount: str
    changes: tuple[BehindChange, ...] = ()
    billed: str
    billed_quantity: int | None = None
    total: str  # of the invoice, rounded once, in its own `total_currency`
    total_currency: str
    adds_up: bool
    items: tuple[BehindItem, ...]
    next: str | None


async def _requests(call: Call) -> Answer:
    query: BehindQuery = call.query

    def work(connection: Connection) -> BehindPage:
        invoice, line = found_in(connection, call), None
        if query.line_id is not None:
            _, line = line_of(connection, invoice, query.line_id)
        return _page(connection, invoice, line, query)

    return Answer(await call.read(work))


def operations() -> list[Operation]:
    return [
        Operation(
            "GET", "/invoices/{id}/requests", "invoices", "The requests behind an invoice's line",
            _requests, right=Right.INVOICES_READ, query=BehindQuery, answers=BehindPage,
            refusals=(404, 422),
        )
    ]  # fmt: skip


def line_of(connection: Connection, invoice: Invoice, named: str) -> tuple[int, InvoiceLine]:
    """422 where the invoice has none of this id or number."""
    found = invoices.line_of(connection, invoice.id, named)
    if found is None:
        raise invalid("line_id", f"the invoice has no line {named!r}")
    return found


def currency_of(invoice: Invoice) -> str:
    """Of what is behind its lines: the ledger's. What a credit note takes back is in its own."""
    exchange = None if invoice.kind == "credit_note" else invoice.exchanged
    return invoice.currency if exchange is None else exchange.currency


def _page(
    connection: Connection, invoice: Invoice, line: InvoiceLine | None, query: BehindQuery
) -> BehindPage:
    behind = explained.behind(connection, invoice, line)
    events = explained.events(connection, behind, _cursor(query.cursor), query.limit + 1)
    shown = events[: query.limit]
    rated = line if line is not None and line.line_kind in OF_USAGE else None
    return BehindPage(
        invoice_id=invoice.id,
        number=invoice.number,
        line_id=query.line_id,
        currency=currency_of(invoice),
        meter=None if rated is None else rated.meter,
        unit_price_per_million=None if rated is None else amount_per_million(rated.picos_per_token),
        price_version=None if rated is None else rated.price_version,
        booked_at_per_million=_per_million(behind.booked_at),
        requests=behind.events,
        quantity=behind.quantity,
        amount=format_picos(behind.amount_picos),
        changes=tuple(_change(each) for each in behind.changes),
        billed=format_picos(behind.billed_picos),
        billed_quantity=None if rated is None else rated.quantity,
        total=format_minor(invoice.total_minor, invoice.currency),
        total_currency=invoice.currency,
        adds_up=behind.adds_up,
        items=tuple(_item(each, rated, behind.booked_at) for each in shown),
        next=f"{shown[-1].admitted_at_us}.{shown[-1].event_id}" if events[query.limit :] else None,
    )


def _change(each: explained.Change) -> BehindChange:
    return BehindChange(cause=each.cause, quantity=each.quantity, amount=format_picos(each.picos))


def _per_million(picos_per_token: int | None) -> str | None:
    return None if picos_per_token is None else amount_per_million(picos_per_token)


def _item(event: Attempt, line: InvoiceLine | None, booked_at: int | None) -> BehindItem:
    quantity, amount = explained.part_of(event, line, booked_at)
    return BehindItem(
        request_id=event.request_id,
        admitted_at=clock.rfc3339(event.admitted_at_us),
        recorded_at=clock.rfc3339(event.recorded_at_us),
        team_id=event.team_id,
        key_id=event.key_id,
        model=event.model,
        provenance=event.provenance,
        hold=event.hold,
        quantity=quantity,
        amount=format_picos(amount),
    )


def _cursor(text: str | None) -> explained.Cursor | None:
    if text is None:
        return None
    at_us, _, event_id = text.partition(".")
    return int(at_us), event_id
