"""The rules a month is invoiced by: what an agreed minimum comes to."""

import pytest

from billing.money import format_picos
from billing.terms import IssuedTerms, Terms, check, minimum_picos


@pytest.mark.parametrize(
    ("since", "period", "expected"),
    [
        (None, "2026-10", "500"),
        ("2026-10-16", "2026-10", "258.06"),
        ("2026-10-16", "2026-09", "0"),
        ("2026-10-16", "2026-11", "500"),
        ("2026-10-31", "2026-10", "16.13"),
        ("2026-10-01", "2026-10", "500"),
        ("2024-02-29", "2024-02", "17.24"),
    ],
)
def test_a_minimum_is_of_the_days_from_its_first(
    since: str | None, period: str, expected: str
) -> None:
    terms = Terms(minimum="500", minimum_from=since)

    assert format_picos(minimum_picos(terms, period, "USD")) == expected


def test_half_a_cent_of_a_minimum_is_a_cent() -> None:
    """15 of 30 days."""
    assert (
        format_picos(
            minimum_picos(Terms(minimum="0.01", minimum_from="2026-11-16"), "2026-11", "USD")
        )
        == "0.01"
    )


def test_a_minimum_in_a_currency_without_cents_is_whole() -> None:
    terms = Terms(minimum="1000", minimum_from="2026-10-16")

    assert format_picos(minimum_picos(terms, "2026-10", "JPY")) == "516"


def test_without_a_minimum_a_month_may_come_to_nothing() -> None:
    assert minimum_picos(Terms(), "2026-10", "USD") == 0


def test_terms_that_no_invoice_can_be_made_by_are_refused() -> None:
    check(Terms(minimum="10.01"), "USD")
    with pytest.raises(ValueError, match="finer"):
        check(Terms(minimum="10.01"), "JPY")
    with pytest.raises(ValueError, match="no minimum"):
        check(Terms(minimum_from="2026-10-16"), "USD")


def test_what_is_issued_keeps_all_terms_and_two_things_more() -> None:
    added = set(IssuedTerms.__struct_fields__) - set(Terms.__struct_fields__)

    assert added == {"tenant", "timezone"}
