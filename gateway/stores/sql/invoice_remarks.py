"""What is said beside the lines of an invoice, from its terms and the month's end."""

from calendar import monthrange
from datetime import date

from msgspec.structs import replace
from sqlalchemy import Connection

from billing import remarks
from billing.terms import Terms
from gateway import clock
from gateway.stores.sql import commitments, invoices, tenants
from gateway.stores.sql.invoices import Invoice


def of(connection: Connection, invoice: Invoice) -> tuple[str, ...]:
    """Of a draft as of now, of an issued one always the same."""
    if invoice.kind != "invoice" or (invoice.status != "draft" and not invoice.early):
        return ()
    if invoice.status != "draft":
        return remarks.of_early(invoice.period)
    tenant = tenants.RECORDS.one(connection, id=invoice.tenant_id)
    if tenant is None:
        return ()
    terms: Terms = invoices.terms_of(connection, invoice)
    last = _last_day(invoice.period)
    committed = commitments.terms_of(connection, tenant, last)
    if any(invoice.period in each.months() for each in committed):
        terms = replace(terms, minimum=None, minimum_from=None)
    return remarks.of_draft(
        terms, invoice.period, tenant.currency, invoice.period_end_us, clock.now_us()
    )


def _last_day(period: str) -> date:
    year, month = (int(part) for part in period.split("-"))
    return date(year, month, monthrange(year, month)[1])
