"""Invoices: drafts of a tenant's month, made from the ledger; what was issued of them."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.invoices import UnbalancedError
from billing.money import format_minor
from gateway import clock
from gateway.admin import fields
from gateway.admin.operation import Answer, Call, Filter, Operation, Page
from gateway.admin.problems import conflict, invalid, missing
from gateway.admin.resource import page_of
from gateway.admin.roles import Right
from gateway.stores.sql import drafts, invoice_remarks, invoices
from gateway.stores.sql.draft_lines import PeriodClosedError
from gateway.stores.sql.drafts import NotBegunError, UnknownTenantError
from gateway.stores.sql.exchange_rates import NoRateError
from gateway.stores.sql.invoices import Invoice

Month = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$",
        description="a month of the tenant's calendar",
        extra={"rule": "a month such as 2026-11"},
    ),
]


_FILTERS: Final = ("tenant_id", "period", "status", "number", "kind", "credits_invoice")


class InvoiceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    tenant_id: fields.Id
    period: Month


class ExchangeView(msgspec.Struct, frozen=True, kw_only=True):
    """How the invoice came from the tenant's currency to its own: `amount` of `currency` at `rate`,
    which is of `day`. It is fixed when the invoice is issued; a credit note has the same rate. What
    corrects an invoice that was made at another rate comes at that one: `earlier`, by its number.
    """

    currency: str
    amount: str | None
    rate: str
    day: str
    source: str
    earlier: dict[str, str]


class InvoiceView(msgspec.Struct, frozen=True, kw_only=True):
    """`kind` is invoice or credit_note; the total of a note is negative, and it names the id of the
    invoice it takes from. `content_sha256` is of lines.csv as it was at issue. `remarks` say what
    no line does: that the month is running, and what its minimum may still ask for.
    """

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
    kind: str
    credits_invoice: str | None
    early: bool
    reason: str | None
    issued_at: str | None
    voided_at: str | None
    void_reason: str | None
    content_sha256: str | None
    exchange: ExchangeView | None
    remarks: tuple[str, ...]


class InvoicePage(Page, frozen=True, forbid_unknown_fields=True):
    tenant_id: Filter | None = None
    period: Filter | None = None
    status: Literal["draft", "issued", "voided"] | None = None
    number: Filter | None = None
    kind: Literal["invoice", "credit_note"] | None = None
    credits_invoice: Filter | None = None


async def _list(call: Call) -> Answer:
    query: InvoicePage = call.query
    given = {name: getattr(query, name) for name in _FILTERS}
    where = {name: value for name, value in given.items() if value is not None}

    def work(connection: Connection) -> tuple[list[InvoiceView], bool]:
        found = invoices.seen(
            connection,
            where,
            query.cursor,
            query.limit + 1,
            call.visible(connection, "invoices"),
            descending=query.descending,
        )
        shown = found[: query.limit]
        return [view(connection, each) for each in shown], len(found) > query.limit

    shown, more = await call.read(work)
    return Answer({"items": shown, "next": shown[-1].id if more else None})


async def _draft(call: Call) -> Answer:
    body = call.body(InvoiceBody)

    def work(connection: Connection) -> tuple[Invoice, InvoiceView]:
        before, after = drafts.refresh(connection, body.tenant_id, body.period, call.principal.id)
        call.changed(connection, "invoices", before, after)
        return after, view(connection, after)

    try:
        invoice, shown = await call.write(work)
    except PeriodClosedError as fault:
        raise conflict("period_closed", str(fault)) from None
    except NotBegunError as fault:
        raise invalid("period", str(fault)) from None
    except UnknownTenantError:
        raise invalid("tenant_id", f"there is no tenant {body.tenant_id!r}") from None
    except UnbalancedError as fault:
        raise conflict("ledger_unbalanced", str(fault)) from None
    except NoRateError as fault:
        raise conflict("no_exchange_rate", str(fault)) from None
    except ValueError as fault:
        raise invalid("period", str(fault)) from None
    location = f"/admin/v1/invoices/{invoice.id}"
    return Answer(shown, invoice.version, location)


async def _read(call: Call) -> Answer:
    def work(connection: Connection) -> tuple[Invoice, InvoiceView]:
        invoice = found_in(connection, call)
        return invoice, view(connection, invoice)

    invoice, shown = await call.read(work)
    return Answer(shown, invoice.version)


async def _delete(call: Call) -> Answer:
    invoice = await found(call)
    call.require_version(invoice.version)

    def work(connection: Connection) -> None:
        if not drafts.take_back(connection, invoice.id):
            raise conflict("not_a_draft", f"invoice {invoice.id} is {invoice.status}; it stays")
        call.changed(connection, "invoices", invoice, None)

    await call.write(work)
    return Answer()


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
    ]  # fmt: skip


async def found(call: Call) -> Invoice:
    """As it is now. What is read later of a draft may be another one's."""
    return await call.read(lambda connection: found_in(connection, call))


def found_in(connection: Connection, call: Call) -> Invoice:
    """The invoice in the path as the caller's view has it, and its lines with it."""
    invoice = invoices.find(connection, call.id)
    if invoice is None:
        raise missing("invoice", call.id)
    return invoice


def view(connection: Connection, invoice: Invoice) -> InvoiceView:
    """As the API shows it."""
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
        kind=invoice.kind,
        credits_invoice=invoice.credits_invoice,
        early=invoice.early,
        reason=invoice.reason,
        issued_at=fields.shown_instant(invoice.issued_at_us),
        voided_at=fields.shown_instant(invoice.voided_at_us),
        void_reason=invoice.void_reason,
        content_sha256=invoice.content_sha256,
        exchange=_exchange(invoice),
        remarks=invoice_remarks.of(connection, invoice),
    )


def _exchange(invoice: Invoice) -> ExchangeView | None:
    found = invoice.exchanged
    if found is None:
        return None
    return ExchangeView(**{name: getattr(found, name) for name in ExchangeView.__struct_fields__})
