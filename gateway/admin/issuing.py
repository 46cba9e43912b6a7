"""What is done to invoices: a draft is issued, an invoice credited or voided. Nothing issued ever
changes but that it may become voided.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.credit_notes import OverCreditedError
from billing.invoices import UnbalancedError
from billing.money import minor_exponent, parse_decimal
from gateway.admin import fields, repeats
from gateway.admin.invoices import InvoiceView, found, view
from gateway.admin.operation import Answer, Call, Operation
from gateway.admin.problems import conflict, invalid
from gateway.admin.roles import Right
from gateway.admin.second_person import by_another
from gateway.stores.sql import drafts, invoices, issuing
from gateway.stores.sql.draft_lines import PeriodClosedError
from gateway.stores.sql.drafts import NotBegunError
from gateway.stores.sql.exchange_rates import NoRateError
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.issuing import StandingError, UnknownLineError

Reason = Annotated[
    str, Meta(min_length=1, max_length=256, extra={"rule": "why, in 1 to 256 characters"})
]


class IssueBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`early`: also while the month, or the time its usage may still come, is running."""

    early: bool = False


class VoidBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Reason


class CreditBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """With `line_id`, a line's id or its number, the note is on that line, and never above what is
    left of it.
    """

    amount: fields.Decimal
    reason: Reason
    line_id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


async def _issue(call: Call) -> Answer:
    body = call.body(IssueBody)

    def work(connection: Connection, before: Invoice) -> tuple[Invoice, Invoice]:
        issuing.hold_bookings(connection)
        if (before.status, before.kind) == ("draft", "invoice"):
            _, before = drafts.refresh(connection, before.tenant_id, before.period)
        call.require_version(before.version)
        return before, issuing.issue(connection, before, call.principal.id, early=body.early)

    try:
        return _shown(*await _done(call, work))
    except OverCreditedError as fault:
        raise conflict("over_credited", str(fault)) from None


async def _void(call: Call) -> Answer:
    body = call.body(VoidBody)

    def work(connection: Connection, before: Invoice) -> tuple[Invoice, Invoice]:
        call.require_version(before.version)
        return before, issuing.void(connection, before, body.reason)

    return _shown(*await _done(call, work))


async def _credit(call: Call) -> Answer:
    body = call.body(CreditBody)

    def work(connection: Connection, invoice: Invoice) -> tuple[Invoice | None, Invoice]:
        made = repeats.made_before(call, connection)
        known = None if made is None else invoices.find(connection, made)
        if known is not None:
            return known, known
        if made is not None:
            raise conflict("not_a_draft", "the draft that this call made was thrown away")
        minor = _minor(body.amount, invoice.currency)
        by = call.principal.id
        note = issuing.credit(connection, invoice, minor, body.reason, body.line_id, by)
        repeats.keep(call, connection, note.id)
        return None, note

    try:
        note, shown = await _done(call, work)
    except OverCreditedError as fault:
        raise invalid("amount", str(fault)) from None
    except UnknownLineError as fault:
        raise invalid("line_id", str(fault)) from None
    return Answer(shown, note.version, f"/admin/v1/invoices/{note.id}")


def operations() -> list[Operation]:
    one = "/invoices/{id}"
    return [
        Operation(
            "POST", f"{one}/issue", "invoices", "Issue a draft", _issue,
            right=Right.INVOICES_ISSUE, body=IssueBody, body_optional=True, answers=InvoiceView,
            etag=True, if_match=True, refusals=(404, 409, 412, 422),
            description="The draft is made anew first: with If-Match it is issued only as it was "
            "read. It gets the next number of its series, and never changes again.",
        ),
        Operation(
            "POST", f"{one}/void", "invoices", "Void what was issued", _void,
            right=Right.INVOICES_ISSUE, body=VoidBody, answers=InvoiceView, etag=True,
            if_match=True, refusals=(404, 409, 412, 422),
            description="It keeps its number. What an invoice had billed is to be billed again.",
        ),
        Operation(
            "POST", f"{one}/credit-notes", "invoices", "Credit an issued invoice", _credit,
            right=Right.INVOICES_ISSUE, status=201, body=CreditBody, answers=InvoiceView,
            etag=True, repeatable=True, refusals=(404, 409, 422),
            description="Issued at once, under a number of its own series; where four eyes are "
            "agreed a draft, which somebody else issues. All notes together are at most what was "
            "invoiced, as a whole and on each line.",
        ),
    ]  # fmt: skip


_Work = Callable[[Connection, Invoice], tuple[Invoice | None, Invoice]]


async def _done(call: Call, work: _Work) -> tuple[Invoice, InvoiceView]:
    """What `work` makes of the invoice in the path, its tenant locked, told in the audit chain."""
    asked = await found(call)

    def told(connection: Connection) -> tuple[Invoice, InvoiceView]:
        before, after = work(connection, issuing.locked(connection, asked))
        call.changed(connection, "invoices", before, after)
        return after, view(connection, after)

    with _refusals():
        return await call.write(told)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        with by_another():
            yield
    except StandingError as fault:
        raise conflict(fault.code, str(fault)) from None
    except PeriodClosedError as fault:
        raise conflict("period_closed", str(fault)) from None
    except UnbalancedError as fault:
        raise conflict("ledger_unbalanced", str(fault)) from None
    except NoRateError as fault:
        raise conflict("no_exchange_rate", str(fault)) from None
    except NotBegunError as fault:
        raise conflict("period_running", str(fault)) from None


def _minor(amount: str, currency: str) -> int:
    try:
        return parse_decimal(amount, minor_exponent(currency))
    except ValueError as fault:
        raise invalid("amount", str(fault), f"in whole minor units of {currency}") from None


def _shown(invoice: Invoice, shown: InvoiceView) -> Answer:
    return Answer(shown, invoice.version)
