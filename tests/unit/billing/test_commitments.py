"""Terms of a commitment: those of the calendar, and what they come to by their days."""

from datetime import date
from typing import Any

import pytest

from billing.commitments import (
    Commitment,
    check,
    odd,
    parse_overage,
    parse_share,
    term_begins,
    terms,
)
from billing.money import format_picos, parse_picos


def committed(amount: str = "300", first: str = "2026-01-01", **given: Any) -> Commitment:
    fields: dict[str, Any] = {"id": "cmt_1", "term": "quarter"} | given
    if isinstance(fields.get("last"), str):
        fields["last"] = date.fromisoformat(fields["last"])
    return Commitment(amount_picos=parse_picos(amount), first=date.fromisoformat(first), **fields)


def told(*given: Commitment, until: str = "2026-12-31", currency: str = "USD") -> list[str]:
    found = terms(given, date.fromisoformat(until), currency)
    return [f"{each.key} to {each.last}: {format_picos(each.committed_picos)}" for each in found]


def test_a_term_that_is_not_filled_pays_by_its_days() -> None:
    assert told(committed(first="2026-02-15", last="2026-11-14")) == [
        "cmt_1/2026-02-15 to 2026-03-31: 150",
        "cmt_1/2026-04-01 to 2026-06-30: 300",
        "cmt_1/2026-07-01 to 2026-09-30: 300",
        "cmt_1/2026-10-01 to 2026-11-14: 146.74",
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"term": "month", "first": "2026-10-16", "last": "2026-10-31"}, "258.06"),
        ({"term": "month", "first": "2024-02-29", "last": "2024-02-29"}, "17.24"),
        ({"term": "year", "first": "2024-12-31", "last": "2024-12-31"}, "1.37"),
        ({"term": "year", "first": "2026-01-01", "last": "2026-12-31"}, "500"),
    ],
)
def test_days_are_those_of_the_calendar(given: dict[str, str], expected: str) -> None:
    (only,) = told(committed("500", **given), until="2026-12-31")

    assert only.endswith(f": {expected}")


def test_the_next_one_takes_over_and_nothing_ends_it() -> None:
    later = committed("60", "2026-04-01", id="cmt_2", term="month")
    none = committed("0", "2026-06-01", id="cmt_3")

    assert told(none, later, committed(), until="2026-08-31") == [
        "cmt_1/2026-01-01 to 2026-03-31: 300",
        "cmt_2/2026-04-01 to 2026-04-30: 60",
        "cmt_2/2026-05-01 to 2026-05-31: 60",
    ]


def test_a_term_that_was_agreed_is_not_cut_short() -> None:
    quarter = committed(last="2026-11-14")

    assert term_begins(quarter, date(2026, 4, 1))
    assert not term_begins(quarter, date(2026, 5, 1))
    assert term_begins(quarter, date(2026, 11, 15)), "it is over by then"


def test_a_yen_has_no_cents_and_neither_has_a_commitment_in_yen() -> None:
    assert told(committed("1000", "2026-01-16"), until="2026-03-31", currency="JPY") == [
        "cmt_1/2026-01-16 to 2026-03-31: 833"
    ]
    with pytest.raises(ValueError, match="finer"):
        check("10.5", "JPY")
    with pytest.raises(ValueError, match="less than nothing"):
        check("-1", "USD")


def test_percents_are_bounded() -> None:
    assert parse_overage("1000") == 10_000_000
    with pytest.raises(ValueError, match="between 0 and 1000"):
        parse_overage("1000.1")
    with pytest.raises(ValueError, match="between 0 and 100"):
        parse_share("100.1")


def test_two_people_set_what_is_odd() -> None:
    before = committed("300")

    assert odd(committed("900"), before) is None
    assert "over three times" in str(odd(committed("900.01"), before))
    assert odd(committed("3600", term="year"), before) is None
    assert odd(committed("3600.01", term="year"), before) is not None
    assert odd(committed("300.01", term="month"), before) is not None
    assert "49.9 percent" in str(odd(committed(overage_e4=499_000), None))
    assert "301 percent" in str(odd(committed(overage_e4=3_010_000), None))
    assert odd(committed("1000000"), None) is None
