"""Exact amounts at a rate."""

import pytest

from billing.exchange import Amounts, Exchange, inverse, is_leap, minor_step, parse_rate
from billing.money import parse_picos

EUR = Exchange(
    currency="USD",
    rate="0.9137",
    day="2026-10-31",
    source="ECB",
    rounding="0.00000000000000000025",
    earlier={"INV-000001": "0.95"},
)


def test_an_amount_is_exact_at_its_rate() -> None:
    amounts = Amounts(EUR)

    assert amounts.text("usage", parse_picos("100"), None) == "91.37"
    assert amounts.text("usage", 1, None) == "0.0000000000009137"
    assert amounts.text("usage", parse_picos("-100"), "INV-000001") == "-95"
    assert amounts.price(3_000_000, None) == "2.7411"
    assert amounts.price(1, "INV-000001") == "0.00000095"


def test_notes_and_rounding_are_in_the_invoices_currency_already() -> None:
    amounts = Amounts(EUR)

    assert amounts.text("credit", parse_picos("-91.37"), "INV-000001") == "-91.37"
    assert amounts.text("rounding", 0, None) == "0.00000000000000000025"


def test_without_an_exchange_amounts_are_those_of_the_ledger() -> None:
    amounts = Amounts(None)

    assert amounts.text("rounding", -485_000_000, None) == "-0.000485"
    assert amounts.text("usage", 5, "INV-000001") == "0.000000000005"
    assert amounts.price(3_000_000, None) == "3"


def test_a_rate_is_turned_once_and_kept_as_it_is_then() -> None:
    assert inverse("1.0945") == "0.913659205116"
    assert inverse("150.25") == "0.006655574043"
    assert inverse("0.5") == "2"


@pytest.mark.parametrize("rate", ["0", "-1", "1e3", "0.0000000000001", "one"])
def test_a_rate_that_exchanges_nothing_is_refused(rate: str) -> None:
    with pytest.raises(ValueError):
        parse_rate(rate)


def test_a_rate_without_an_inverse_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="the other way round"):
        inverse("9000000000000")


@pytest.mark.parametrize(("currency", "decimals"), [("JPY", 0), ("EUR", 2), ("KWD", 3)])
def test_a_minor_unit_is_a_whole_number_of_steps(currency: str, decimals: int) -> None:
    assert minor_step(currency) == 10 ** (24 - decimals)


@pytest.mark.parametrize(
    ("rate", "beside", "turned", "leaps"),
    [
        ("1.1", "1", False, False),
        ("1.100000000001", "1", False, True),
        ("1", "1.1", False, False),
        ("1", "1.100000000001", False, True),
        ("1.25", "0.8", True, False),
        ("0.8", "0.8", True, True),
        ("0.88", "1.25", True, False),
        ("0.881", "1.25", True, True),
        ("9000000000000", "0.000000000001", False, True),
    ],
)
def test_a_rate_leaps_that_is_more_than_a_tenth_away_either_way(
    rate: str, beside: str, turned: bool, leaps: bool
) -> None:
    assert is_leap(rate, beside, turned=turned) is leaps
    assert is_leap(beside, rate, turned=turned) is leaps
