"""What a request may cost at most is refused beyond what the scripts can count exactly."""

import pytest
from msgspec.structs import replace

from billing.holds import WorstCase
from gateway.dataplane.quote import Quote, beyond_counting
from policies.budgets import MAX_COUNTER, MAX_UNIT_PRICE


def a_quote(input_nanos: int, output_nanos: int, wanted: int, choices: int = 1) -> Quote:
    worst = WorstCase(input_nanos, output_nanos)
    return Quote(worst, 1, wanted, wanted, wanted, choices)


def test_what_a_row_of_the_ledger_has_no_room_for_is_refused_and_said() -> None:
    just = replace(a_quote(990, 1, 10), most=1_000)

    assert beyond_counting(just) is None
    deny = beyond_counting(replace(just, most=999))
    assert deny is not None
    assert "more than this ledger has room for (SQLite)" in deny.message


@pytest.mark.parametrize(
    "quote",
    [
        a_quote(MAX_COUNTER, 0, 10),
        a_quote(MAX_COUNTER - 20, 1, 10, 2),
        a_quote(0, MAX_UNIT_PRICE, 1),
    ],
)
def test_what_can_just_be_counted_is_admitted(quote: Quote) -> None:
    assert beyond_counting(quote) is None


@pytest.mark.parametrize(
    "quote",
    [
        a_quote(MAX_COUNTER + 1, 0, 10),
        a_quote(MAX_COUNTER - 19, 1, 10, 2),
        a_quote(0, MAX_UNIT_PRICE + 1, 1),
    ],
)
def test_one_more_is_refused(quote: Quote) -> None:
    deny = beyond_counting(quote)

    assert deny is not None
    assert deny.code == "cost_ceiling_exceeded"
