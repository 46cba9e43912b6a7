"""Months that are used, drafted, issued and credited; prices of the acceptance cases."""

from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Engine

from billing.invoices import InvoiceLine, csv_rows
from billing.meters import Meter, Meters
from billing.money import format_minor
from billing.periods import window
from billing.prices import Rate, sealed_card
from billing.terms import Terms
from billing.usage import UsageEvent
from gateway.clock import parse_rfc3339
from gateway.stores.sql import drafts, invoices, issuing, manifests, terms
from gateway.stores.sql import usage as ledger
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.invoices import Invoice
from tests.ledger_events import an_event

ACME, BHARAT = "tenant_acme", "tenant_bharat"
CARD = sealed_card(
    "USD",
    [
        Rate(Meter.INPUT, 3_000_000, "p_in"),
        Rate(Meter.CACHE_READ, 300_000, "p_read"),
        Rate(Meter.CACHE_WRITE_5M, 3_750_000, "p_write"),
        Rate(Meter.OUTPUT, 15_000_000, "p_out"),
    ],
)


def book(engine: Engine, *events: UsageEvent) -> int:
    return ledger.record(engine, [(event, True) for event in events])


def october(request: str, at: str = "2026-10-14T12:00:00Z", **changes: Any) -> UsageEvent:
    fields: dict[str, Any] = {
        "charge_card": CARD,
        "cost_card": None,
        "admitted_at_us": parse_rfc3339(at),
    }
    return an_event(request, **(fields | changes))


def drafted(engine: Engine, period: str = "2026-10", tenant: str = ACME) -> Invoice:
    return drafts.make_draft(engine, tenant, period)[0]


def issued(engine: Engine, invoice: Invoice, *, early: bool = False) -> Invoice:
    with transaction(engine) as connection:
        found = issuing.locked(connection, invoice)
        issuing.hold_bookings(connection)
        _, fresh = drafts.refresh(connection, found.tenant_id, found.period)
        return issuing.issue(connection, fresh, "adm_finance", early=early)


def credited(engine: Engine, invoice: Invoice, minor: int, line: str | None = None) -> Invoice:
    with transaction(engine) as connection:
        found = issuing.locked(connection, invoice)
        return issuing.credit(connection, found, minor, "goodwill", line)


def lines_of(engine: Engine, invoice: Invoice) -> list[InvoiceLine]:
    return list(invoices.lines(engine, invoice.id))


def amounts(engine: Engine, invoice: Invoice) -> list[Decimal]:
    """As lines.csv has them, exact, in the invoice's currency."""
    head, *rows = csv_rows(
        lines_of(engine, invoice),
        invoice_number=invoice.number,
        tenant="",
        currency=invoice.currency,
        exchange=invoice.exchanged,
    )
    return [Decimal(row[head.index("amount")]) for row in rows]


def total(invoice: Invoice) -> str:
    return format_minor(invoice.total_minor, invoice.currency)


def is_intact(engine: Engine, invoice: Invoice) -> bool | None:
    with reading(engine) as connection:
        found = invoices.find(connection, invoice.id)
        return None if found is None else manifests.of(connection, found).intact


def agree(engine: Engine, tenant: str = ACME, **given: Any) -> None:
    with transaction(engine) as connection:
        before = terms.of(connection, tenant)
        terms.put(connection, before, msgspec.structs.replace(Terms(), **given))


def hundred(engine: Engine) -> Invoice:
    book(engine, october("req_1", usage=Meters(input=33_333_333, cache_read=3)))
    book(engine, october("req_2", usage=Meters(output=5, cache_read=67)))
    return issued(engine, drafted(engine))


def month_of(at_us: int) -> str:
    return window("month", ZoneInfo("Europe/Berlin"), at_us).id.removeprefix("m")
