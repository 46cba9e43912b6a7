"""An invoice as one JSON document: its head, who bills whom, what was credited, and every line."""

from collections.abc import Iterator
from datetime import timedelta
from typing import IO, Final, Literal
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Connection

from billing.exchange import Amounts
from billing.money import format_minor
from billing.printed import day
from billing.terms import IssuedTerms
from gateway.admin import fields
from gateway.admin.invoice_files import file_name
from gateway.admin.invoice_lines import LineView, line_view
from gateway.admin.invoices import InvoiceView, found_in, view
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.roles import Right
from gateway.admin.tables import file_answer, write_bytes
from gateway.admin.terms import PartyBody
from gateway.stores.sql import invoices
from gateway.stores.sql.invoices import Invoice

JSON: Final = "application/json"
FORMAT: Final = "meterhouse-invoice-1"
_ENCODER: Final = msgspec.json.Encoder()
_AT_ONCE: Final = 64 * 1024


class NoteView(msgspec.Struct, frozen=True, kw_only=True):
    """A credit note on the invoice that is not voided."""

    number: str
    total: str
    reason: str | None
    issued_at: str | None


class DocumentView(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts of lines are exact, and add up to the total with the one of kind `rounding`; their
    `printed` ones do so without it. `tax` is as it was given: none is computed. `payable_by` is a
    day of the tenant's calendar.
    """

    format: Literal["meterhouse-invoice-1"]
    invoice: InvoiceView
    tenant: str
    timezone: str
    issuer: PartyBody
    recipient: PartyBody
    purchase_order: str
    payment_days: int | None
    payable_by: str | None
    tax: dict[str, str] | None
    credit_notes: tuple[NoteView, ...]
    lines: tuple[LineView, ...]  # the last field: lines are written as they are read


async def _document(call: Call) -> Answer:
    def work(connection: Connection) -> tuple[Invoice, IO[bytes]]:
        invoice = found_in(connection, call)
        return invoice, write_bytes(parts(connection, invoice))

    invoice, file = await call.read(work)
    named = {"content-disposition": f'attachment; filename="{file_name(invoice, "json")}"'}
    return Answer(ready=file_answer(file, JSON, named))


def operations() -> list[Operation]:
    return [
        Operation(
            "GET", "/invoices/{id}/invoice.json", "invoices", "An invoice with all its lines",
            _document, right=Right.INVOICES_READ, answers=DocumentView, refusals=(404,),
        )
    ]  # fmt: skip


def parts(connection: Connection, invoice: Invoice) -> Iterator[bytes]:
    """The document. Memory does not grow with the lines."""
    whole = _ENCODER.encode(_head(connection, invoice))
    yield whole.removesuffix(b"]}")
    amounts, some = Amounts(invoice.exchanged), bytearray()
    for number, line in enumerate(invoices.lines_of(connection, invoice.id), 1):
        some += b"," if number > 1 else b""
        some += _ENCODER.encode(line_view(number, line, invoice.currency, amounts))
        if len(some) > _AT_ONCE:
            yield bytes(some)
            some.clear()
    yield bytes(some) + b"]}\n"


def _head(connection: Connection, invoice: Invoice) -> DocumentView:
    terms = invoices.terms_of(connection, invoice)
    notes = invoices.credit_notes(connection, invoice.id)
    recipient = msgspec.structs.replace(terms.recipient, name=terms.recipient.name or terms.tenant)
    return DocumentView(
        format=FORMAT,
        invoice=view(connection, invoice),
        tenant=terms.tenant,
        timezone=terms.timezone,
        issuer=msgspec.convert(msgspec.to_builtins(terms.issuer), PartyBody),
        recipient=msgspec.convert(msgspec.to_builtins(recipient), PartyBody),
        purchase_order=terms.purchase_order,
        payment_days=terms.payment_days,
        payable_by=_payable_by(invoice, terms),
        tax=terms.tax,
        credit_notes=tuple(
            NoteView(
                number=each.number or "",
                total=format_minor(each.total_minor, each.currency),
                reason=each.reason,
                issued_at=fields.shown_instant(each.issued_at_us),
            )
            for each in notes
        ),
        lines=(),
    )


def _payable_by(invoice: Invoice, terms: IssuedTerms) -> str | None:
    if invoice.issued_at_us is None or terms.payment_days is None or invoice.kind != "invoice":
        return None
    issued = day(invoice.issued_at_us, ZoneInfo(terms.timezone))
    return (issued + timedelta(days=terms.payment_days)).isoformat()
