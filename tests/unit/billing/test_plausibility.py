"""Prices whose unit was mistaken."""

import pytest

from billing.plausibility import is_implausible, is_leap
from billing.prices import picos_per_token


def test_a_price_that_moves_over_threefold_is_a_leap() -> None:
    assert not is_leap(100, 300)
    assert not is_leap(300, 100)
    assert not is_leap(0, 0)
    assert is_leap(100, 301)
    assert is_leap(301, 100)
    assert is_leap(0, 1)
    assert is_leap(1, 0)


@pytest.mark.parametrize(
    ("amount", "currency", "odd"),
    [
        ("0", "USD", False),
        ("0.0005", "USD", False),
        ("1000", "USD", False),
        ("1000.000001", "USD", True),
        ("0.000499", "USD", True),
        ("0.000003", "USD", True),
        ("15000", "USD", True),
        ("15000", "JPY", False),
        ("0.0005", "JPY", True),
    ],
)
def test_a_price_far_from_any_is_a_unit_mistaken(amount: str, currency: str, odd: bool) -> None:
    assert is_implausible(picos_per_token(amount), currency) is odd
