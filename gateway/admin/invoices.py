"""Invoices: drafts of a tenant's month, made from the ledger, and their lines as CSV."""

import asyncio
import re
from typing import IO, Annotated, Final, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection, Engine

from billing.invoices import UnbalancedError, csv_rows
from billing.money import format_minor
from gateway import clock
from gateway.admin import fields
from gateway.admin.operation import Answer, Call, Filter, Operation, Page
from gateway.admin.problems import ProblemError, conflict, invalid, missing
from gateway.admin.resource import page_of
from gateway.admin.roles import Right
from gateway.admin.tables import CSV, csv_file_answer, write_csv
from gateway.stores.sql import invoices, tenants
from gateway.stores.sql.engine import reading
from gateway.stores.sql.invoices import Invoice, NotBegunError, UnknownTenantError

Month = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$",
        description="a month of the tenant's calendar",
        extra={"rule": "a month such as 2026-11"},
    ),
]
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


class InvoiceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    tenant_id: fields.Id
    period: Month


class InvoiceView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant_id: str
    period: str
    number: str | None
    status: str
    currency: str
    total: str
    period_start: str
    period_end: str
    created_at: str


class InvoicePage(Page, frozen=True, forbid_unknown_fields=True):
    tenant_id: Filter | None = None
    period: Filter | None = None
    status: Literal["draft", "issued", "voided"] | None = None
    number: Filter | None = None


async def _list(call: Call) -> Answer:
    query: InvoicePage = call.query
    given = {name: getattr(query, name) for name in ("tenant_id", "period", "status", "number")}
    where = {name: value for name, value in given.items() if value is not None}
    found = await call.read(
        lambda connection: invoices.seen(
            connection, where, query.cursor, query.limit + 1, call.visible(connection, "invoices")
        )
    )
    shown = found[: query.limit]
    return Answer(
        {
            "items": [_view(invoice) for invoice in shown],
            "next": shown[-1].id if len(found) > query.limit else None,
        }
    )


async def _draft(call: Call) -> Answer:
    body = call.body(InvoiceBody)

    def work(connection: Connection) -> Invoice:
        before, after = invoices.refresh(connection, body.tenant_id, body.period)
        call.changed(connection, "invoices", before, after)
        return after

    try:
        invoice = await call.write(work)
    except NotBegunError as fault:
        raise invalid("period", str(fault)) from None
    except UnknownTenantError:
        raise invalid("tenant_id", f"there is no tenant {body.tenant_id!r}") from None
    except UnbalancedError as fault:
        raise conflict("ledger_unbalanced", str(fault)) from None
    except ValueError as fault:
        raise invalid("period", str(fault)) from None
    location = f"/admin/v1/invoices/{invoice.id}"
    return Answer(_view(invoice), invoice.version, location)


async def _read(call: Call) -> Answer:
    invoice = await _found(call)
    return Answer(_view(invoice), invoice.version)


async def _delete(call: Call) -> Answer:
    invoice = await _found(call)
    call.require_version(invoice.version)

    def work(connection: Connection) -> None:
        if not invoices.take_back(connection, invoice.id):
            raise conflict("not_a_draft", f"invoice {invoice.id} is {invoice.status}; it stays")
        call.changed(connection, "invoices", invoice, None)

    await call.write(work)
    return Answer()


async def _lines(call: Call) -> Answer:
    invoice = await _found(call)
    file = await asyncio.to_thread(_write_lines, call.deps.engine, invoice)
    name = f"invoice-{_UNSAFE.sub('_', invoice.number or 'draft')}-{invoice.period}.csv"
    return Answer(ready=csv_file_answer(file, name))


def operations() -> list[Operation]:
    path, one = "/invoices", "/invoices/{id}"
    return [
        Operation(
            "GET", path, "invoices", "List invoices", _list,
            right=Right.INVOICES_READ, query=InvoicePage, answers=page_of(InvoiceView),
        ),
        Operation(
            "POST", path, "invoices", "Make or refresh the draft of a month", _draft,
            right=Right.INVOICES_DRAFT, status=201, body=InvoiceBody, answers=InvoiceView,
            etag=True, refusals=(409, 422),
        ),
        Operation(
            "GET", one, "invoices", "Read an invoice", _read,
            right=Right.INVOICES_READ, answers=InvoiceView, etag=True, refusals=(404,),
        ),
        Operation(
            "DELETE", one, "invoices", "Throw a draft away", _delete,
            right=Right.INVOICES_DRAFT, status=204, if_match=True, refusals=(404, 409, 412),
        ),
        Operation(
            "GET", f"{one}/lines.csv", "invoices", "The lines of an invoice", _lines,
            right=Right.INVOICES_READ, answers={"type": "string"}, refusals=(404,),
            media_types=(CSV,),
            description="The columns are fixed. With the one `rounding` line the exact amounts add "
            "up to the total.",
        ),
    ]  # fmt: skip


async def _found(call: Call) -> Invoice:
    invoice = await asyncio.to_thread(invoices.one, call.deps.engine, call.id)
    if invoice is None:
        raise missing("invoice", call.id)
    return invoice


def _write_lines(engine: Engine, invoice: Invoice) -> IO[bytes]:
    with reading(engine) as connection:
        tenant = tenants.RECORDS.one(connection, id=invoice.tenant_id)
    if tenant is None:
        raise ProblemError(500, "internal_error", f"invoice {invoice.id} has no tenant")
    rows = csv_rows(
        invoices.lines(engine, invoice.id),
        invoice_number=invoice.number,
        tenant=tenant.name,
        currency=invoice.currency,
    )
    return write_csv(rows)


def _view(invoice: Invoice) -> InvoiceView:
    return InvoiceView(
        id=invoice.id,
        tenant_id=invoice.tenant_id,
        period=invoice.period,
        number=invoice.number,
        status=invoice.status,
        currency=invoice.currency,
        total=format_minor(invoice.total_minor, invoice.currency),
        period_start=clock.rfc3339(invoice.period_start_us),
        period_end=clock.rfc3339(invoice.period_end_us),
        created_at=clock.rfc3339(invoice.created_at_us),
    )
