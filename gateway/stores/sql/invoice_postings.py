"""What is issued, credited and voided, as postings: derived from the invoice as it is kept, so that
they can be made again and compared.
"""

from typing import Any

from sqlalchemy import Connection, select

from billing.ledger import (
    Billed,
    Posting,
    credit_postings,
    invoice_postings,
    void_postings,
)
from gateway import clock
from gateway.stores.sql import invoice_sources, journal
from gateway.stores.sql.bulk import append
from gateway.stores.sql.exact import exact_sum, require_room, whole
from gateway.stores.sql.invoice_tables import invoice_lines, invoice_usage
from gateway.stores.sql.invoice_tables import invoices as table
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.journal_origin import VOIDED
from gateway.stores.sql.tables import postings, tenants


def post_issued(connection: Connection, invoice: Invoice) -> None:
    """Of one that has just been issued, in its transaction."""
    post_earlier(connection, invoice.tenant_id)
    _post(connection, invoice, invoice.id, derived(connection, invoice))


def post_voided(connection: Connection, invoice: Invoice) -> None:
    """Of one that has just been voided: what was posted at its issue is taken back."""
    post_earlier(connection, invoice.tenant_id)
    _post_void(connection, invoice)


def _post_void(connection: Connection, invoice: Invoice) -> None:
    entry_id = f"{invoice.id}{VOIDED}"
    _post(connection, invoice, entry_id, derived_void(connection, invoice))


def post_earlier(connection: Connection, tenant_id: str) -> None:
    """What was issued before there were postings of invoices, and has none."""
    began_us = journal.began_at_us(connection)
    of = table.c
    query = select(table).where(of.tenant_id == tenant_id, of.issued_at_us < began_us)
    for row in connection.execute(query.order_by(of.issued_at_us, of.id)).mappings().all():
        invoice = Invoice(**row)
        if kept(connection, invoice.id) or not derived(connection, invoice):
            continue
        _post(connection, invoice, invoice.id, derived(connection, invoice))
        if invoice.voided_at_us is not None and invoice.voided_at_us < began_us:
            _post_void(connection, invoice)


def derived(connection: Connection, invoice: Invoice) -> tuple[Posting, ...]:
    """The postings of its issue."""
    of = invoice_lines.c
    dialect = connection.dialect.name
    mine = of.invoice_id == invoice.id
    rounding = of.line_kind == "rounding"
    billed = Billed(
        id=invoice.id,
        tenant_id=invoice.tenant_id,
        currency=invoice.currency,
        total_minor=invoice.total_minor,
        ledger_currency=_currency(connection, invoice.tenant_id),
        used=_used(connection, invoice.id),
        lines_picos=_sum(connection, select(*exact_sum(dialect, of.amount_picos)).where(mine)),
        rounding_picos=_sum(
            connection, select(*exact_sum(dialect, of.amount_picos)).where(mine, rounding)
        ),
        at_us=invoice.issued_at_us or 0,
        deferred_picos=_deferred(connection, invoice.id),
    )
    return credit_postings(billed) if invoice.kind == "credit_note" else invoice_postings(billed)


def derived_void(connection: Connection, invoice: Invoice) -> tuple[Posting, ...]:
    return void_postings(derived(connection, invoice), invoice.voided_at_us or 0)


def kept(connection: Connection, invoice_id: str) -> set[Posting]:
    """The postings that an invoice has."""
    found = connection.execute(select(postings).where(postings.c.event_id == invoice_id))
    return {Posting(**row) for row in found.mappings()}


def _post(
    connection: Connection, invoice: Invoice, entry_id: str, new: tuple[Posting, ...]
) -> None:
    if new and new[0].kind in {each.kind for each in kept(connection, invoice.id)}:
        return  # it is older than the chains by another clock
    for each in new:
        require_room(
            connection.dialect.name, each.amount_picos, f"what is posted on {each.account}"
        )
    rows = [
        (p.event_id, p.kind, p.account, p.tenant_id, p.amount_picos, p.currency, p.at_us)
        for p in new
    ]
    append(connection, postings, rows)
    source = invoice_sources.source_of(connection, invoice, entry_id)
    journal.seal_invoice(connection, entry_id, source, new, clock.now_us())


def _used(connection: Connection, invoice_id: str) -> dict[str, int]:
    of = invoice_usage.c
    found = connection.execute(
        select(of.team_id, *exact_sum(connection.dialect.name, of.charge_picos))
        .where(of.invoice_id == invoice_id)
        .group_by(of.team_id)
    )
    return {team_id: whole(high, low) for team_id, high, low in found}


def _deferred(connection: Connection, invoice_id: str) -> int:
    """What its lines add to what commitments have paid for, less what was used or expired."""
    of, dialect = invoice_lines.c, connection.dialect.name
    mine = of.invoice_id == invoice_id
    paid = mine & of.line_kind.in_(("commitment", "drawdown", "true_up"))
    expired = mine & of.line_kind.in_(("true_up", "unused"))
    return _sum(connection, select(*exact_sum(dialect, of.amount_picos)).where(paid)) - _sum(
        connection, select(*exact_sum(dialect, of.commitment_picos)).where(expired)
    )


def _sum(connection: Connection, query: Any) -> int:
    return whole(*connection.execute(query).one())


def _currency(connection: Connection, tenant_id: str) -> str:
    return str(connection.scalar(select(tenants.c.currency).where(tenants.c.id == tenant_id)))
