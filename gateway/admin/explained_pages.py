"""Why a line of an invoice says what it says, and how a request was rated, as pages to send on."""

from collections.abc import Iterable, Iterator
from typing import IO, Final

import msgspec
from sqlalchemy import Connection

from billing import explained_page
from billing.explained_page import Booking, Change, Explained, Rated, RatedAttempt
from billing.invoices import OF_USAGE, InvoiceLine
from billing.prices import RateCard
from billing.rating import lines as rated_lines
from gateway.admin.explaining import LineId, currency_of, line_of
from gateway.admin.invoice_files import HTML, SEALED, STYLE, file_name
from gateway.admin.invoices import found_in
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.problems import missing
from gateway.admin.reports import names_of_all
from gateway.admin.requests import RequestQuery, cursor_of
from gateway.admin.roles import Right
from gateway.admin.tables import file_answer, write_file
from gateway.admin.usage import filters_of, span_of, within
from gateway.stores.sql import explained, invoices, rate_cards, tenants, usage_requests
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.usage_requests import Attempt

_AT_ONCE: Final = 500


class LineQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`line_id`: or the line's number, as the page of the invoice has it; all usage without it."""

    line_id: LineId | None = None


async def _requests(call: Call) -> Answer:
    query: LineQuery = call.query

    def work(connection: Connection) -> tuple[Invoice, IO[bytes]]:
        invoice = found_in(connection, call)
        return invoice, _write_requests(connection, invoice, query.line_id)

    invoice, file = await call.read(work)
    return _page(file, file_name(invoice, "html", "requests"))


async def _rating(call: Call) -> Answer:
    query: RequestQuery = call.query
    start_us, end_us = span_of(query)
    if query.request_id is not None and query.from_ is None:
        start_us = 0
    seen = await within(call)

    def work(connection: Connection) -> IO[bytes]:
        requests = usage_requests.page_of(
            connection, start_us=start_us, end_us=end_us, after=cursor_of(query.cursor),
            limit=query.limit, within=seen, filters=filters_of(query),
        )  # fmt: skip
        if query.request_id is not None and not requests:
            raise missing("request", query.request_id)
        rated = [_rated(connection, each) for each in requests]
        return write_file(explained_page.rating_page(rated, STYLE))

    return _page(await call.read(work), "rating.html")


def operations() -> list[Operation]:
    return [
        Operation(
            "GET", "/invoices/{id}/requests.html", "invoices",
            "The requests behind an invoice's line as a page to print", _requests,
            right=Right.INVOICES_READ, query=LineQuery, answers={"type": "string"},
            refusals=(404, 422), media_types=(HTML,),
            description="From what was booked to what the line says, and request by request.",
        ),
        Operation(
            "GET", "/usage/rating.html", "usage", "How requests were rated, as a page to print",
            _rating, right=Right.USAGE_READ, query=RequestQuery, answers={"type": "string"},
            refusals=(404, 422), media_types=(HTML,),
            description="Of those that `/usage/requests` lists; of `request_id` whenever it was.",
        ),
    ]  # fmt: skip


def _page(file: IO[bytes], name: str) -> Answer:
    headers = SEALED | {"content-disposition": f'inline; filename="{name}"'}
    return Answer(ready=file_answer(file, HTML, headers))


def _write_requests(connection: Connection, invoice: Invoice, line_id: str | None) -> IO[bytes]:
    number = line = None
    if line_id is not None:
        number, line = line_of(connection, invoice, line_id)
    behind = explained.behind(connection, invoice, line)
    of = _explained(connection, invoice, number, line, behind)
    bookings = _bookings(connection, behind, line)
    return write_file(explained_page.requests_page(of, bookings, STYLE))


def _explained(
    connection: Connection,
    invoice: Invoice,
    number: int | None,
    line: InvoiceLine | None,
    behind: explained.Behind,
) -> Explained:
    terms = invoices.terms_of(connection, invoice)
    kind = "Credit note" if invoice.kind == "credit_note" else "Invoice"
    return Explained(
        invoice=f"{kind} {invoice.number or 'draft of ' + invoice.period}",
        tenant=terms.recipient.name or terms.tenant,
        timezone=terms.timezone,
        currency=currency_of(invoice),
        invoice_currency=invoice.currency,
        line=line,
        number=number,
        booked_at_picos=behind.booked_at,
        requests=behind.events,
        quantity=behind.quantity,
        amount_picos=behind.amount_picos,
        changes=tuple(Change(each.cause, each.quantity, each.picos) for each in behind.changes),
        billed_picos=behind.billed_picos,
        total_minor=invoice.total_minor,
        adds_up=behind.adds_up,
    )


def _bookings(
    connection: Connection, behind: explained.Behind, line: InvoiceLine | None
) -> Iterator[Booking]:
    """As many as the page shows, and one more part of them at a time in memory."""
    names, rated = names_of_all(connection), None
    if line is not None and line.line_kind in OF_USAGE:
        rated = line
    after: explained.Cursor | None = None
    while some := explained.events(connection, behind, after, _AT_ONCE):
        for each in some:
            quantity, picos = explained.part_of(each, rated, behind.booked_at)
            yield Booking(
                at_us=each.admitted_at_us,
                request_id=each.request_id,
                team=names.get(each.team_id, each.team_id),
                app=names.get(each.key_id, each.key_id),
                model=each.model,
                provenance=each.provenance,
                quantity=quantity,
                picos=picos,
            )
        after = (some[-1].admitted_at_us, some[-1].event_id)


def _rated(connection: Connection, attempts: list[Attempt]) -> Rated:
    first, names = attempts[0], names_of_all(connection)
    cards = rate_cards.get(connection, {each.charge_card for each in attempts})
    numbers = explained.billed_by(connection, attempts)
    tenant = tenants.RECORDS.one(connection, id=first.tenant_id)
    return Rated(
        request_id=first.request_id,
        tenant=names.get(first.tenant_id, first.tenant_id),
        timezone="UTC" if tenant is None else tenant.timezone,
        team=names.get(first.team_id, first.team_id),
        app=names.get(first.key_id, first.key_id),
        model=first.model,
        operation=first.operation,
        at_us=first.admitted_at_us,
        currency=first.currency,
        attempts=tuple(_attempts(attempts, cards, numbers)),
    )


def _attempts(
    attempts: Iterable[Attempt], cards: dict[str, RateCard], numbers: dict[str, str]
) -> Iterator[RatedAttempt]:
    for each in attempts:
        card = cards[each.charge_card]
        yield RatedAttempt(
            attempt=each.attempt,
            winner=each.winner,
            provenance=each.provenance,
            hold=each.hold,
            region=each.region,
            lines=rated_lines(each.usage, card) if each.winner else (),
            picos=each.charge_picos if each.winner else 0,
            invoice=numbers.get(each.event_id),
        )
