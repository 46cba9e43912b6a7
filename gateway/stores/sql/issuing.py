"""A draft becomes an invoice, an invoice is credited, or voided: each in one transaction with the
number it takes, so that a series has no gaps.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, func, select, text, update

from billing import credit_notes
from billing.csv_files import csv_text
from billing.exchange import Exchange
from billing.invoices import InvoiceLine, csv_rows
from billing.terms import IssuedTerms
from gateway import clock, ids
from gateway.stores.sql import corrections, invoice_postings, invoices
from gateway.stores.sql import terms as tenant_terms
from gateway.stores.sql.bulk import append
from gateway.stores.sql.drafts import locked_tenant
from gateway.stores.sql.exact import require_room
from gateway.stores.sql.invoice_tables import invoice_lines
from gateway.stores.sql.invoice_tables import invoices as table
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.second_person import is_another, require_another

_CREDITABLE = frozenset({"usage", "overage", "minimum", "commitment", "true_up"})
_DAY_US = 86_400_000_000
_ENCODER = msgspec.json.Encoder(order="deterministic")


class StandingError(Exception):
    """The invoice is not in a state for this. The message says what it is, `code` for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnknownLineError(LookupError):
    """The invoice has no such line that something could be credited on."""


def locked(connection: Connection, invoice: Invoice) -> Invoice:
    """The invoice as it is now, with its tenant locked until the end of the transaction: nothing
    else drafts, issues, credits or voids for the tenant meanwhile.
    """
    locked_tenant(connection, invoice.tenant_id)
    found = invoices.find(connection, invoice.id)
    if found is None:
        raise StandingError("not_a_draft", "the draft is gone; make it anew")
    return found


def hold_bookings(connection: Connection) -> None:
    """Until the end of the transaction nothing is booked: what an invoice has, and what came too
    late for it, are told apart by the time of booking.
    """
    corrections.one_at_a_time(connection, alone=True)


def issue(connection: Connection, draft: Invoice, principal_id: str, *, early: bool) -> Invoice:
    """The draft, which was refreshed in this transaction, issued. StandingError for one that its
    terms do not let be issued yet; SecondPersonError where somebody else has to; OverCreditedError
    for a credit note that asks for more than is left by now.
    """
    if draft.status != "draft":
        raise StandingError("not_a_draft", f"invoice {draft.number} is {draft.status} already")
    _require_another(connection, draft, principal_id)
    if draft.kind == "credit_note":
        return _issued_note(connection, draft)
    terms = invoices.terms_of(connection, draft)
    now_us = clock.now_us()
    running = now_us < draft.period_end_us
    if not early:
        _require_over(draft, terms, now_us)
    return _issued(connection, replace(draft, early=running), terms, terms.series, now_us)


def void(connection: Connection, invoice: Invoice, reason: str) -> Invoice:
    """It keeps its number, and what it covered is to be billed again."""
    if invoice.status != "issued":
        raise StandingError("not_issued", f"only what is issued is voided; it is {invoice.status}")
    if invoices.credit_notes(connection, invoice.id):
        raise StandingError("has_credit_notes", "void its credit notes first")
    voided = replace(
        invoice,
        status="voided",
        voided_at_us=clock.now_us(),
        void_reason=reason,
        version=invoice.version + 1,
    )
    _write(connection, voided)
    invoice_postings.post_voided(connection, voided)
    return voided


def credit(
    connection: Connection,
    invoice: Invoice,
    minor: int,
    reason: str,
    on_line: str | None,
    by: str | None = None,
) -> Invoice:
    """A credit note of `minor` units, issued; where four eyes are agreed a draft of one, `by` whom
    it is not issued. OverCreditedError above what is left of the invoice or the line;
    UnknownLineError; StandingError unless the invoice is issued.
    """
    number = _number_to_credit(invoice)
    line = None if on_line is None else _line(connection, invoice, on_line)
    _require_left(connection, invoice, line, minor)
    note = Invoice(
        id=ids.new("inv"),
        tenant_id=invoice.tenant_id,
        period=invoice.period,
        currency=invoice.currency,
        period_start_us=invoice.period_start_us,
        period_end_us=invoice.period_end_us,
        total_minor=-minor,
        created_at_us=clock.now_us(),
        kind="credit_note",
        drafted_by=by,
        credits_invoice=invoice.id,
        reason=reason,
        exchange=_exchange_of_note(invoice),
    )
    connection.execute(table.insert().values(**msgspec.structs.asdict(note)))
    credited = credit_notes.line_of(
        minor,
        currency=invoice.currency,
        note_id=note.id,
        number=number,
        credited=line,
        period=invoice.span,
    )
    require_room(connection.dialect.name, credited.amount_picos, "the line of the credit note")
    row = (note.id, 1, *(getattr(credited, name) for name in invoices.LINE_COLUMNS))
    append(connection, invoice_lines, [row])
    if _bound(connection, invoice.tenant_id, by) is not None:
        return note
    return _numbered_note(connection, note, invoice)


def _issued_note(connection: Connection, note: Invoice) -> Invoice:
    """Of a draft; others may have been issued since it was made."""
    invoice = invoices.find(connection, note.credits_invoice or "")
    (of_note,) = invoices.lines_of(connection, note.id)
    if invoice is None:
        raise StandingError("not_issued", "the invoice that it credits is gone")
    _number_to_credit(invoice)
    on_line = of_note.credits_line
    line = None if on_line is None else _line(connection, invoice, on_line)
    _require_left(connection, invoice, line, -note.total_minor)
    return _numbered_note(connection, note, invoice)


def _numbered_note(connection: Connection, note: Invoice, invoice: Invoice) -> Invoice:
    terms = invoices.terms_of(connection, invoice)
    return _issued(connection, note, terms, f"{terms.series}-CN", clock.now_us())


def _number_to_credit(invoice: Invoice) -> str:
    if (invoice.kind, invoice.status) != ("invoice", "issued") or invoice.number is None:
        raise StandingError("not_issued", "only an issued invoice is credited")
    return invoice.number


def _require_left(
    connection: Connection, invoice: Invoice, line: InvoiceLine | None, minor: int
) -> None:
    notes = invoices.credit_notes(connection, invoice.id)
    credit_notes.check(
        minor,
        left_of_invoice=invoice.total_minor + sum(note.total_minor for note in notes),
        left_of_line=None if line is None else line.amount_minor + _credited(connection, line),
        currency=invoice.currency,
    )


def _require_another(connection: Connection, draft: Invoice, principal_id: str) -> None:
    why = _bound(connection, draft.tenant_id, principal_id)
    if why is not None:
        require_another(connection, draft.drafted_by, principal_id, why, agreed=True)


def _bound(connection: Connection, tenant_id: str, principal_id: str | None) -> str | None:
    """Why it takes two. Nor does it help to end the rule oneself: somebody else has to have."""
    of = tenant_terms.of(connection, tenant_id)
    if of.terms.four_eyes:
        return "four eyes are agreed for this tenant"
    ended_by = of.four_eyes_ended_by
    if None in {ended_by, principal_id}:
        return None
    if is_another(connection, ended_by, principal_id or "", agreed=True):
        return None
    return (
        "four eyes were agreed for this tenant until you ended that yourself, or a token did that "
        "is gone"
    )


def _exchange_of_note(invoice: Invoice) -> str | None:
    """At the invoice's rate, whatever it is now: what is taken back is what was billed."""
    exchange = invoice.exchanged
    if exchange is None:
        return None
    kept = Exchange(
        currency=exchange.currency, rate=exchange.rate, day=exchange.day, source=exchange.source
    )
    return _ENCODER.encode(kept).decode()


def content_sha256(
    lines: Iterable[InvoiceLine],
    number: str,
    tenant: str,
    currency: str,
    exchange: Exchange | None = None,
) -> str:
    """Of lines.csv, byte by byte; memory does not grow with it."""
    hashed = hashlib.sha256()
    rows = csv_rows(
        lines, invoice_number=number, tenant=tenant, currency=currency, exchange=exchange
    )
    for record in csv_text(rows):
        hashed.update(record.encode())
    return hashed.hexdigest()


def _require_over(draft: Invoice, terms: IssuedTerms, now_us: int) -> None:
    if now_us < draft.period_end_us:
        raise StandingError(
            "period_running",
            f"{draft.period} runs until {clock.rfc3339(draft.period_end_us)}; issue it then, or "
            'now with {"early": true}: later usage goes to a next invoice of the same period',
        )
    graceful_us = draft.period_end_us + terms.grace_days * _DAY_US
    if now_us < graceful_us:
        raise StandingError(
            "grace_running",
            f"usage of {draft.period} may come until {clock.rfc3339(graceful_us)}; issue it then, "
            'or now with {"early": true}: later usage goes on the next invoice as a correction',
        )


def _issued(
    connection: Connection, draft: Invoice, terms: IssuedTerms, series: str, now_us: int
) -> Invoice:
    number = f"{series}-{_next_number(connection, series):06d}"
    lines = invoices.lines_of(connection, draft.id)
    issued = replace(
        draft,
        number=number,
        status="issued",
        version=draft.version + 1,
        issued_at_us=now_us,
        terms=_ENCODER.encode(terms).decode(),
        content_sha256=content_sha256(lines, number, terms.tenant, draft.currency, draft.exchanged),
    )
    _write(connection, issued)
    invoice_postings.post_issued(connection, issued)
    return issued


def _next_number(connection: Connection, series: str) -> int:
    """Whoever takes one next waits for this transaction, and takes the same if it fails."""
    taken = connection.execute(
        text(
            "INSERT INTO invoice_series (series, last_number) VALUES (:series, 1) ON CONFLICT"
            " (series) DO UPDATE SET last_number = invoice_series.last_number + 1"
            " RETURNING last_number"
        ),
        {"series": series},
    )
    return int(taken.scalar_one())


def _write(connection: Connection, invoice: Invoice) -> None:
    values: dict[str, Any] = msgspec.structs.asdict(invoice)
    written = connection.execute(update(table).where(table.c.id == invoice.id).values(**values))
    if written.rowcount != 1:
        raise StandingError("not_a_draft", "the draft is gone; make it anew")


def _line(connection: Connection, invoice: Invoice, named: str) -> InvoiceLine:
    found = invoices.line_of(connection, invoice.id, named)
    if found is None or found[1].line_kind not in _CREDITABLE:
        raise UnknownLineError(f"the invoice has no line {named!r:.80} to credit")
    return found[1]


def _credited(connection: Connection, line: InvoiceLine) -> int:
    """Minor units, negative: by the notes on this line that are not voided."""
    of = invoice_lines.c
    found = connection.scalar(
        select(func.sum(of.amount_minor))
        .join(table, table.c.id == of.invoice_id)
        .where(of.credits_line == line.line_id, table.c.status == "issued")
    )
    return int(found or 0)
