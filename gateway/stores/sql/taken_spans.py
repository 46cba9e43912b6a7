"""Which bookings of a month are on which of its invoices, told by when they were booked: bookings
wait while one is issued.

An invoice took all that was booked by the time it was issued, but for what those have that stood
then. One that was voided since took it all the same; its month, invoiced anew, has the same again,
and not what a later invoice took meanwhile.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, or_, select

from gateway.stores.sql.invoice_tables import invoice_usage, invoices
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.tables import usage_rows

Spans = Sequence[tuple[int, int]]  # after the first, up to the second: microseconds UTC

_EVER: Final = (-1, 2**62)


def of_month(connection: Connection, tenant_id: str, start_us: int) -> Mapping[str, Spans]:
    """By the id of the invoice, of all that were ever issued and have anything of the month that
    begins then.
    """
    found: list[tuple[str, int, int | None, Spans]] = []
    for id_, issued_at_us, voided_at_us in connection.execute(_takers(tenant_id, start_us)):
        spans = _less(
            [(_EVER[0], issued_at_us)],
            (
                span
                for _, _, until_us, spans in found
                if until_us is None or until_us > issued_at_us
                for span in spans
            ),
        )
        found.append((id_, issued_at_us, voided_at_us, spans))
    return {id_: spans for id_, _, _, spans in found}


def booked(connection: Connection, invoice: Invoice, start_us: int) -> ColumnElement[bool]:
    """Of usage rows of that month, those that the invoice took; those that a draft takes."""
    issued = of_month(connection, invoice.tenant_id, start_us)
    spans = issued.get(invoice.id)
    if spans is None:
        query = select(invoices.c.id).where(
            invoices.c.id.in_(list(issued)), invoices.c.status == "issued"
        )
        standing = connection.scalars(query)
        spans = _less([_EVER], (span for id_ in standing for span in issued[id_]))
    at = usage_rows.c.recorded_at_us
    return or_(False, *(and_(at > after_us, at <= until_us) for after_us, until_us in spans))


def has(spans: Spans, at_us: int) -> bool:
    return any(after_us < at_us <= until_us for after_us, until_us in spans)


def _takers(tenant_id: str, start_us: int) -> Select[Any]:
    of = invoices.c
    takes = exists().where(
        invoice_usage.c.invoice_id == of.id, invoice_usage.c.period_start_us == start_us
    )
    return (
        select(of.id, of.issued_at_us, of.voided_at_us)
        .where(of.tenant_id == tenant_id, of.kind == "invoice", of.issued_at_us.is_not(None))
        .where(or_(of.period_start_us == start_us, takes))
        .order_by(of.issued_at_us, of.id)
    )


def _less(spans: Spans, taken: Iterable[tuple[int, int]]) -> Spans:
    for after_us, until_us in taken:
        left = []
        for one, other in spans:
            left += [(one, min(other, after_us)), (max(one, until_us), other)]
        spans = [(one, other) for one, other in left if one < other]
    return spans
