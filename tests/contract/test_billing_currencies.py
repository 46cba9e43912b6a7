"""Case 14 of the acceptance cases: invoices in another currency than the ledger, at a rate that is
locked when the month is closed. Exact amounts, on both databases.
"""

from collections.abc import Iterator
from decimal import Decimal

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from billing.meters import Meter, Meters
from billing.prices import Rate, sealed_card
from gateway import clock
from gateway.stores.sql import books, exchange_rates
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.exchange_rates import ExchangeRate, NoRateError
from gateway.stores.sql.invoices import Invoice
from tests.invoicing import (
    agree,
    amounts,
    book,
    credited,
    drafted,
    hundred,
    is_intact,
    issued,
    lines_of,
    october,
    total,
)  # fmt: skip
from tests.ledger_events import a_ledger


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def enter(engine: Engine, rate: str, day: str, base: str = "USD", quote: str = "EUR") -> None:
    with transaction(engine) as connection:
        entered = ExchangeRate(
            id=f"rate_{day}_{clock.now_us()}",
            base=base,
            quote=quote,
            rate=rate,
            day=day,
            source="ECB",
            created_at_us=clock.now_us(),
        )
        exchange_rates.RECORDS.add(connection, entered)


def rate_of(invoice: Invoice) -> tuple[str, str]:
    exchange = invoice.exchanged
    assert exchange is not None
    return exchange.rate, exchange.day


def test_case_14_what_is_priced_in_one_currency_is_billed_in_another(engine: Engine) -> None:
    agree(engine, currency="EUR")
    enter(engine, "0.9137", "2026-10-30")
    invoice = hundred(engine)
    enter(engine, "0.9644", "2026-10-31")
    enter(engine, "0.9871", "2026-11-30")

    note = credited(engine, invoice, 91_37)

    assert (invoice.currency, total(invoice)) == ("EUR", "91.37")
    assert rate_of(invoice) == ("0.9137", "2026-10-30")
    assert sum(amounts(engine, invoice)) == Decimal("91.37")
    assert (note.currency, total(note)) == ("EUR", "-91.37")
    assert sum(amounts(engine, note)) == Decimal("-91.37")
    assert rate_of(note) == ("0.9137", "2026-10-30"), "the rate of the invoice, and no residue"
    assert is_intact(engine, invoice) is is_intact(engine, note) is True
    with reading(engine) as connection:
        assert books.check(connection).faults == ()


@pytest.mark.parametrize(
    ("currency", "rate", "expected"), [("JPY", "150.25", "417"), ("KWD", "0.3071", "0.852")]
)
def test_case_14_a_total_has_the_minor_units_of_its_currency(
    engine: Engine, currency: str, rate: str, expected: str
) -> None:
    agree(engine, currency=currency)
    enter(engine, rate, "2026-10-31", quote=currency)
    card = sealed_card("USD", [Rate(Meter.INPUT, 100_000, "p_in")])
    book(engine, october("req_1", charge_card=card, usage=Meters(input=27_746_599)))

    invoice = issued(engine, drafted(engine))

    exchange = invoice.exchanged
    assert exchange is not None
    assert exchange.amount == "2.7746599"
    assert total(invoice) == expected
    assert sum(amounts(engine, invoice)) == Decimal(expected)
    assert [line.line_kind for line in lines_of(engine, invoice)] == ["usage", "rounding"]


def test_case_14_late_usage_comes_at_the_rate_of_the_month_it_belongs_to(engine: Engine) -> None:
    agree(engine, currency="EUR")
    enter(engine, "0.9137", "2026-10-31")
    enter(engine, "0.5", "2026-11-02")
    invoice = hundred(engine)
    late = october("req_late", usage=Meters(input=10_000_000))
    now = october("req_now", "2026-11-02T12:00:00Z", usage=Meters(input=2_000_000))
    book(engine, late, now)

    november = drafted(engine, "2026-11")

    of = {line.corrects_invoice: line.line_id for line in lines_of(engine, november)[:2]}
    assert set(of) == {None, invoice.number}
    assert amounts(engine, november) == [Decimal(3), Decimal("27.411"), Decimal("-0.001")]
    assert total(november) == "30.41"


def test_case_14_a_draft_follows_the_rates_and_an_invoice_does_not(engine: Engine) -> None:
    agree(engine, currency="EUR")
    book(engine, october("req_1", usage=Meters(input=1_000_000)))
    with pytest.raises(NoRateError, match="from USD to EUR of 2026-10-31"):
        drafted(engine)
    enter(engine, "0.9", "2026-09-29")
    with pytest.raises(NoRateError, match="2026-09-30"):
        drafted(engine)
    enter(engine, "0.8", "2026-10-31")
    first = drafted(engine)
    enter(engine, "0.9", "2026-10-31")
    second = drafted(engine)
    invoice = issued(engine, second)
    enter(engine, "0.7", "2026-10-31")

    assert [total(each) for each in (first, second, invoice)] == ["2.40", "2.70", "2.70"]
    assert second.version == first.version + 1
    assert is_intact(engine, invoice) is True


def test_case_14_a_rate_that_is_entered_the_other_way_round_is_turned(engine: Engine) -> None:
    agree(engine, currency="EUR")
    enter(engine, "1.25", "2026-10-31", base="EUR", quote="USD")
    invoice = hundred(engine)

    exchange = invoice.exchanged
    assert exchange is not None
    assert (exchange.rate, total(invoice)) == ("0.8", "80.00")
    assert exchange.source == "ECB, from 1.25 USD for 1 EUR"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE exchange_rates SET rate = '1'",
        "DELETE FROM exchange_rates",
        "UPDATE invoices SET exchange = NULL WHERE status = 'issued'",
    ],
)
def test_case_14_the_database_keeps_rates_and_what_was_made_at_them(
    engine: Engine, statement: str
) -> None:
    agree(engine, currency="EUR")
    enter(engine, "0.9137", "2026-10-31")
    invoice = hundred(engine)

    with pytest.raises(DBAPIError, match="never"), transaction(engine) as connection:
        connection.execute(text(statement))

    assert is_intact(engine, invoice) is True
