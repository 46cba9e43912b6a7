"""A draft in another currency: exact lines, one rounding, and what was billed at another rate."""

from fractions import Fraction
from random import Random

import pytest

from billing.converted import in_currency
from billing.exchange import Amounts, Exchange, minor_step
from billing.invoices import Draft, csv_rows, draft
from billing.meters import Meters
from billing.money import format_minor
from billing.periods import Window
from tests.unit.billing.samples import aggregate, card

OCTOBER = Window("m2026-10", 1_790_805_600_000_000, 1_793_487_600_000_000)
RATE = Exchange(currency="USD", rate="0.9137", day="2026-10-31", source="ECB")


def october(*quantities: int, corrects: str | None = None, price: str = "3") -> Draft:
    return draft(
        [
            aggregate(
                team=f"team {n}",
                card=card(input=price),
                meters=Meters(input=quantity),
                corrects_invoice=corrects,
            )
            for n, quantity in enumerate(quantities)
        ],
        invoice_id="inv_1",
        currency="USD",
        period=OCTOBER,
    )


def converted(
    made: Draft, currency: str, rate: str, rates: dict[str, str] | None = None
) -> tuple[Draft, Exchange]:
    exchange = Exchange(currency="USD", rate=rate, day="2026-10-31", source="ECB")
    return in_currency(
        made, currency, exchange, invoice_id="inv_1", period=OCTOBER, rates=rates or {}
    )


@pytest.mark.parametrize(
    ("currency", "rate", "total"),
    [("EUR", "0.9137", "2.54"), ("JPY", "150.25", "417"), ("KWD", "0.3071", "0.852")],
)
def test_a_total_is_rounded_once_in_its_own_currency(currency: str, rate: str, total: str) -> None:
    made, exchange = converted(october(27_746_599, price="0.1"), currency, rate)

    assert format_minor(made.total_minor, currency) == total
    assert exchange.amount == "2.7746599"


def test_lines_and_rounding_add_up_to_the_total_and_so_do_the_printed_ones() -> None:
    draw = Random(14)
    for _ in range(50):
        quantities = [draw.randrange(1, 10**7) for _ in range(draw.randrange(1, 9))]
        rate = f"{draw.randrange(1, 10**6)}.{draw.randrange(10**12):012d}"
        currency = draw.choice(["JPY", "EUR", "KWD", "CLF"])
        made, exchange = converted(october(*quantities), currency, rate)
        amounts, step = Amounts(exchange), minor_step(currency)
        exact = [
            amounts.exact(each.line_kind, each.amount_picos, each.corrects_invoice)
            for each in made.lines
        ]
        true = Fraction(rate) * 3 * sum(quantities) / 10**6

        assert sum(exact) == made.total_minor * step
        assert sum(line.amount_minor for line in made.lines) == made.total_minor
        assert abs(Fraction(made.total_minor * step, 10**24) - true) * 2 <= Fraction(step, 10**24)
        assert [line.line_kind for line in made.lines].count("rounding") <= 1


def test_what_corrects_an_invoice_comes_at_the_rate_of_that_one() -> None:
    made, exchange = converted(
        october(-1_000_000, corrects="INV-000001"), "EUR", "0.95", {"INV-000001": "0.9137"}
    )

    assert format_minor(made.total_minor, "EUR") == "-2.74"
    assert exchange.earlier == {"INV-000001": "0.9137"}
    assert converted(october(1), "EUR", "0.95", {"INV-000001": "0.9137"})[1].earlier == {}


def test_lines_csv_is_in_the_invoices_currency_and_price_times_tokens_is_the_amount() -> None:
    made, exchange = converted(october(1_000_001), "EUR", "0.9137")
    head, *rows = csv_rows(
        made.lines, invoice_number=None, tenant="Acme", currency="EUR", exchange=exchange
    )
    table = [dict(zip(head, row, strict=True)) for row in rows]

    assert [row["unit_price_per_million"] for row in table] == ["2.7411", "0"]
    assert [row["amount"] for row in table] == ["2.7411027411", "-0.0011027411"]
    assert {row["currency"] for row in table} == {"EUR"}
