"""What idles has an account, or goes to teams by a stated rule."""

from billing.boxes import filled
from billing.idle import IDLE, absorbed, spread

HOUR_US = 3_600_000_000
RATES = {"prefill_tokens_per_second": "34000", "decode_tokens_per_second": "6800"}


def test_a_box_that_did_nothing_idles_for_all_that_it_costs() -> None:
    found = absorbed(filled("h100", RATES), HOUR_US, 0, 0)

    assert found.variance_picos == found.actual_picos
    assert 12 * 10**12 < found.actual_picos < 13 * 10**12


def test_a_box_that_earns_more_than_it_costs_has_something_to_give_back() -> None:
    found = absorbed(filled("h100", RATES), HOUR_US, HOUR_US, 30 * 10**12)

    assert found.variance_picos < 0
    assert spread(found.variance_picos, "platform", {"a": 1}) == {IDLE: found.variance_picos}


def test_the_parts_go_by_the_rule_and_the_largest_remainder() -> None:
    assert spread(100, "busy", {"a": 1, "b": 1, "c": 1}) == {"a": 34, "b": 33, "c": 33}
    assert spread(100, "busy", {"a": 3, "b": 1, "c": 0}) == {"a": 75, "b": 25}
    assert spread(101, "even", {"a": 3, "b": 1}) == {"a": 51, "b": 50}
    assert spread(-100, "busy", {"a": 1, "b": 2}) == {"a": -33, "b": -67}
    assert spread(7, "busy", {"a": 0}) == {IDLE: 7}
    assert spread(7, "even", {}) == {IDLE: 7}


def test_no_time_costs_nothing() -> None:
    assert absorbed(filled("h100", RATES), 0, 0, 0).actual_picos == 0
