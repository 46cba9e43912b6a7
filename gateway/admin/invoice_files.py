"""An invoice as files: its lines as CSV or FOCUS, and a page to print."""

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import IO, Final, Literal, get_args

import msgspec
from sqlalchemy import Connection

from billing import focus, focus_detail, invoice_page
from billing.invoices import csv_rows
from billing.terms import IssuedTerms
from gateway.admin.invoices import found_in
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.problems import conflict
from gateway.admin.roles import Right
from gateway.admin.tables import CSV, csv_file_answer, file_answer, write_csv, write_file
from gateway.stores.sql import invoice_remarks, invoices
from gateway.stores.sql.invoices import Invoice

Form = Literal[
    "lines", "focus-1.2", "focus-1.4-experimental", "focus-1.4-invoice-detail-experimental"
]  # fmt: skip
FORMS: Final[tuple[Form, ...]] = get_args(Form)
HTML: Final = "text/html"
SEALED: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "x-content-type-options": "nosniff",
}
STYLE: Final = (files("gateway.admin") / "invoice_page.css").read_text(encoding="ascii")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


class LinesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`voided`: also where the invoice is. Nothing in the lines says so; the file's name does."""

    voided: Literal["true", "false"] = "false"


class FocusQuery(LinesQuery, frozen=True, forbid_unknown_fields=True):
    version: focus.Version = "1.2"


async def _lines(call: Call) -> Answer:
    return await _table(call, "lines", call.query)


async def _focus(call: Call) -> Answer:
    query: FocusQuery = call.query
    form: Form = "focus-1.2" if query.version == "1.2" else "focus-1.4-experimental"
    return await _table(call, form, query)


async def _detail(call: Call) -> Answer:
    return await _table(call, "focus-1.4-invoice-detail-experimental", LinesQuery(voided="true"))


async def _page(call: Call) -> Answer:
    def work(connection: Connection) -> tuple[Invoice, IO[bytes]]:
        invoice = found_in(connection, call)
        return invoice, _write_page(connection, invoice)

    invoice, file = await call.read(work)
    name = file_name(invoice, "html")
    return Answer(
        ready=file_answer(
            file, HTML, SEALED | {"content-disposition": f'inline; filename="{name}"'}
        )
    )


def operations() -> list[Operation]:
    one = "/invoices/{id}"
    return [
        Operation(
            "GET", f"{one}/lines.csv", "invoices", "The lines of an invoice", _lines,
            right=Right.INVOICES_READ, query=LinesQuery, answers={"type": "string"},
            refusals=(404, 409), media_types=(CSV,),
            description="The columns are fixed. With the one `rounding` line the exact amounts add "
            "up to the total.",
        ),
        Operation(
            "GET", f"{one}/focus.csv", "invoices", "The lines of an invoice as FOCUS", _focus,
            right=Right.INVOICES_READ, query=FocusQuery, answers={"type": "string"},
            refusals=(404, 409), media_types=(CSV,),
            description="A Cost and Usage dataset: a row a line, adding up to the total in "
            "BilledCost. 1.2 is what we vouch for; 1.4 is experimental.",
        ),
        Operation(
            "GET", f"{one}/focus-detail.csv", "invoices", "Its FOCUS 1.4 Invoice Detail", _detail,
            right=Right.INVOICES_READ, answers={"type": "string"}, refusals=(404,),
            media_types=(CSV,),
            description="Experimental. `InvoiceDetailId` joins it with focus.csv of version 1.4.",
        ),
        Operation(
            "GET", f"{one}/page.html", "invoices", "An invoice as a page to print", _page,
            right=Right.INVOICES_READ, answers={"type": "string"}, refusals=(404,),
            media_types=(HTML,),
            description="Complete in itself: nothing is loaded from anywhere.",
        ),
    ]  # fmt: skip


async def _table(call: Call, form: Form, query: LinesQuery) -> Answer:
    """Head and lines are of one instant: a draft may be made anew at any."""

    def work(connection: Connection) -> tuple[Invoice, IO[bytes]]:
        invoice = _counts(found_in(connection, call), query)
        return invoice, write_csv(rows_of(connection, invoice, form))

    invoice, file = await call.read(work)
    named = "" if form == "lines" else form
    return Answer(ready=csv_file_answer(file, file_name(invoice, "csv", named)))


def _counts(invoice: Invoice, query: LinesQuery) -> Invoice:
    """Rows of what counts no more look like any others to whoever adds them up."""
    if invoice.status == "voided" and query.voided != "true":
        raise conflict(
            "invoice_voided",
            f"{invoice.number} is voided: its lines count no more, and nothing in them says so; "
            "`voided=true` answers them all the same",
        )
    return invoice


def file_name(invoice: Invoice, extension: str, form: str = "") -> str:
    name = f"invoice-{_UNSAFE.sub('_', invoice.number or 'draft')}-{invoice.period}"
    name += "-VOIDED" if invoice.status == "voided" else ""
    return f"{name}-{form}.{extension}" if form else f"{name}.{extension}"


def rows_of(connection: Connection, invoice: Invoice, form: Form) -> Iterator[tuple[str, ...]]:
    """The header, then a row a line, in one of the forms. Memory does not grow with the lines."""
    terms = invoices.terms_of(connection, invoice)
    lines, bill = invoices.lines_of(connection, invoice.id), _bill(invoice, terms)
    match form:
        case "lines":
            return csv_rows(
                lines,
                invoice_number=invoice.number,
                tenant=terms.tenant,
                currency=invoice.currency,
                exchange=invoice.exchanged,
            )
        case "focus-1.2":
            return focus.rows(lines, bill, "1.2")
        case "focus-1.4-experimental":
            return focus.rows(lines, bill, "1.4")
        case _:
            return focus_detail.rows(lines, _of_detail(invoice, terms, bill))


def _of_detail(invoice: Invoice, terms: IssuedTerms, bill: focus.Bill) -> focus_detail.Detail:
    return focus_detail.Detail(
        bill=bill,
        status=invoice.status,
        created_at_us=invoice.created_at_us,
        issued_at_us=invoice.issued_at_us,
        voided_at_us=invoice.voided_at_us,
        payment_days=terms.payment_days,
        purchase_order=terms.purchase_order,
    )


def _bill(invoice: Invoice, terms: IssuedTerms) -> focus.Bill:
    return focus.Bill(
        number=invoice.number,
        tenant_id=invoice.tenant_id,
        tenant=terms.recipient.name or terms.tenant,
        issuer=terms.issuer.name or "Meterhouse",
        currency=invoice.currency,
        period_start_us=invoice.period_start_us,
        period_end_us=invoice.period_end_us,
        reason=invoice.reason,
        exchange=invoice.exchanged,
    )


def _write_page(connection: Connection, invoice: Invoice) -> IO[bytes]:
    head = _head(connection, invoice)
    parts = invoice_page.page(head, lambda: invoices.lines_of(connection, invoice.id), STYLE)
    return write_file(parts)


def _head(connection: Connection, invoice: Invoice) -> invoice_page.Head:
    notes = invoices.credit_notes(connection, invoice.id)
    credited = invoices.find(connection, invoice.credits_invoice or "")
    return invoice_page.Head(
        kind=invoice.kind,
        status=invoice.status,
        number=invoice.number,
        terms=invoices.terms_of(connection, invoice),
        currency=invoice.currency,
        period_start_us=invoice.period_start_us,
        period_end_us=invoice.period_end_us,
        total_minor=invoice.total_minor,
        issued_at_us=invoice.issued_at_us,
        credits=None if credited is None else credited.number,
        reason=invoice.void_reason or invoice.reason,
        notes=tuple(
            invoice_page.Note(note.number or "", note.total_minor, note.reason or "")
            for note in notes
        ),
        sha256=invoice.content_sha256,
        exchange=invoice.exchanged,
        remarks=invoice_remarks.of(connection, invoice),
    )
