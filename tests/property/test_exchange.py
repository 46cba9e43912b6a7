"""Whatever the rate and the currency: lines are exact, the total is rounded once, and what is
printed adds up to it.
"""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.converted import in_currency
from billing.exchange import Amounts, Exchange, minor_step
from billing.invoices import csv_rows, draft
from billing.meters import Meters
from billing.money import format_decimal, format_minor
from billing.periods import Window
from tests.unit.billing.samples import aggregate, card

OCTOBER = Window("m2026-10", 1_790_805_600_000_000, 1_793_487_600_000_000)
RATES = st.integers(1, 10**15).map(lambda picos: format_decimal(picos, 12))
TOKENS = st.lists(st.integers(-(10**9), 10**12).filter(bool), min_size=1, max_size=6)
LATE = st.sampled_from([None, "INV-000001", "INV-000002"])


@given(
    quantities=TOKENS,
    rate=RATES,
    before=RATES,
    corrects=LATE,
    price=st.integers(1, 10**9),
    currency=st.sampled_from(["JPY", "EUR", "KWD", "CLF"]),
)
@settings(max_examples=60, deadline=None)
def test_a_conversion_loses_nothing_but_what_its_rounding_line_has(
    quantities: list[int], rate: str, before: str, corrects: str | None, price: int, currency: str
) -> None:
    per_million = format_decimal(price, 6)
    made = draft(
        [
            aggregate(
                team=f"team {n}",
                card=card(input=per_million),
                meters=Meters(input=tokens),
                corrects_invoice=corrects,
            )
            for n, tokens in enumerate(quantities)
        ],
        invoice_id="inv_1",
        currency="USD",
        period=OCTOBER,
    )
    exchange = Exchange(currency="USD", rate=rate, day="2026-10-31", source="s")
    rates = {"INV-000001": before}
    made, exchange = in_currency(
        made, currency, exchange, invoice_id="inv_1", period=OCTOBER, rates=rates
    )

    used = Fraction(before if corrects == "INV-000001" else rate)
    true = used * sum(quantities) * Fraction(per_million) / 10**6
    total = Fraction(Decimal(format_minor(made.total_minor, currency)))
    half = Fraction(minor_step(currency), 2 * 10**24)
    assert abs(total - true) <= half
    assert sum(line.amount_minor for line in made.lines) == made.total_minor
    amounts = Amounts(exchange)
    for line in made.lines:
        exact = amounts.exact(line.line_kind, line.amount_picos, line.corrects_invoice)
        if line.line_kind == "rounding":
            assert abs(Fraction(exact, 10**24)) <= half
        else:
            assert abs(exact - line.amount_minor * minor_step(currency)) < minor_step(currency)
    head, *rows = csv_rows(
        made.lines, invoice_number=None, tenant="t", currency=currency, exchange=exchange
    )
    table = [dict(zip(head, row, strict=True)) for row in rows]
    assert sum(Fraction(row["amount"]) for row in table) == total
    for row in table:
        if row["line_kind"] == "usage":
            by_price = Fraction(row["unit_price_per_million"]) * int(row["quantity"]) / 10**6
            assert by_price == Fraction(row["amount"])
