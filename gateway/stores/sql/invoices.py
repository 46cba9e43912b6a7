"""Invoices and credit notes as they are kept: heads, lines, and the terms they were made by."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, and_, or_, select

from billing.exchange import Exchange
from billing.invoices import InvoiceLine
from billing.periods import Window
from billing.terms import IssuedTerms
from gateway.stores.sql import terms
from gateway.stores.sql.engine import reading
from gateway.stores.sql.invoice_tables import invoice_lines, invoices
from gateway.stores.sql.records import following
from gateway.stores.sql.tables import tenants

LINE_COLUMNS: Final = tuple(column.name for column in invoice_lines.columns)[2:]  # of the line
_TERMS: Final = msgspec.json.Decoder(IssuedTerms)
_EXCHANGE: Final = msgspec.json.Decoder(Exchange)
_NUMBER: Final = re.compile("[1-9][0-9]{0,8}")


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    """The head of an invoice; its lines are read apart because there may be very many."""

    id: str
    tenant_id: str
    period: str  # 2026-11
    number: str | None = None  # null until issued
    status: str = "draft"  # draft | issued | voided
    currency: str
    period_start_us: int
    period_end_us: int
    total_minor: int  # negative of a credit note
    version: int = 1
    created_at_us: int = 0
    kind: str = "invoice"  # invoice | credit_note
    credits_invoice: str | None = None  # id of the invoice that a credit note takes from
    early: bool = False  # issued before its month was over: more of it may follow
    drafted_by: str | None = None  # id of the principal
    reason: str | None = None  # of a credit note
    issued_at_us: int | None = None
    voided_at_us: int | None = None
    void_reason: str | None = None
    terms: str | None = None  # as they were at issue
    content_sha256: str | None = None  # of lines.csv as it was at issue
    exchange: str | None = None  # where it is in another currency than the ledger

    @property
    def span(self) -> Window:
        return Window(f"m{self.period}", self.period_start_us, self.period_end_us)

    @property
    def exchanged(self) -> Exchange | None:
        return None if self.exchange is None else _EXCHANGE.decode(self.exchange)


def one(engine: Engine, invoice_id: str) -> Invoice | None:
    with reading(engine) as connection:
        return find(connection, invoice_id)


def find(connection: Connection, invoice_id: str) -> Invoice | None:
    """The same in the caller's view."""
    found = connection.execute(select(invoices).where(invoices.c.id == invoice_id))
    row = found.mappings().one_or_none()
    return None if row is None else Invoice(**row)


def page(engine: Engine, where: dict[str, str], after: str | None, limit: int) -> list[Invoice]:
    """Invoices whose columns equal `where`, ordered by id, from after the id `after`."""
    with reading(engine) as connection:
        return seen(connection, where, after, limit)


def seen(
    connection: Connection,
    where: dict[str, str],
    after: str | None,
    limit: int,
    only: Iterable[ColumnElement[bool]] = (),
    *,
    descending: bool = False,
) -> list[Invoice]:
    """The same from the caller's view, and of those that meet all of `only`."""
    beyond, order = following(invoices.c.id, after, descending=descending)
    query = select(invoices).filter_by(**where).where(*only, *beyond).order_by(order).limit(limit)
    return [Invoice(**row) for row in connection.execute(query).mappings()]


def lines(engine: Engine, invoice_id: str) -> Iterator[InvoiceLine]:
    """In their order, a part at a time: memory does not grow with the invoice."""
    with reading(engine) as connection:
        yield from lines_of(connection, invoice_id)


def lines_of(connection: Connection, invoice_id: str) -> Iterator[InvoiceLine]:
    """The same of the caller's view."""
    names = InvoiceLine.__struct_fields__
    of_it = invoice_lines.c.invoice_id == invoice_id
    query = select(*(invoice_lines.c[name] for name in names)).where(of_it)
    ordered = query.order_by(invoice_lines.c.position)
    found = connection.execute(ordered, execution_options={"yield_per": 1_000})
    for row in found:
        yield InvoiceLine(**dict(zip(names, row, strict=True)))


def line_of(connection: Connection, invoice_id: str, named: str) -> tuple[int, InvoiceLine] | None:
    """A line by its id or by its number, which is its place in lines.csv and on the page; the
    number, and the line.
    """
    of = invoice_lines.c
    is_it = of.line_id == named
    if _NUMBER.fullmatch(named) is not None:
        is_it = of.position == int(named)
    columns = (of[name] for name in InvoiceLine.__struct_fields__)
    query = select(of.position, *columns).where(of.invoice_id == invoice_id, is_it)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    number, *values = row
    return number, InvoiceLine(**dict(zip(InvoiceLine.__struct_fields__, values, strict=True)))


def terms_of(connection: Connection, invoice: Invoice) -> IssuedTerms:
    """As they were at issue; of a draft, as they are."""
    if invoice.terms is not None:
        return _TERMS.decode(invoice.terms)
    tenant = connection.execute(select(tenants).filter_by(id=invoice.tenant_id)).one()
    now = terms.of(connection, invoice.tenant_id).terms
    return IssuedTerms(
        **{name: getattr(now, name) for name in now.__struct_fields__},
        tenant=tenant.name,
        timezone=tenant.timezone,
    )


def stood(at_us: int | None) -> ColumnElement[bool]:
    """Of what is issued, what was not voided by then; None: what stands now."""
    of = invoices.c
    if at_us is None:
        return of.status == "issued"
    return and_(of.issued_at_us < at_us, or_(of.voided_at_us.is_(None), of.voided_at_us >= at_us))


def credit_notes(connection: Connection, invoice_id: str) -> list[Invoice]:
    """Those on the invoice that are not voided, as they were issued."""
    query = select(invoices).filter_by(credits_invoice=invoice_id, status="issued")
    found = connection.execute(query.order_by(invoices.c.issued_at_us, invoices.c.id))
    return [Invoice(**row) for row in found.mappings()]
