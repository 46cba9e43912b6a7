import pytest

from billing.holds import WorstCase, worst_case
from tests.unit.billing.samples import card


def test_the_dearest_card_of_the_plan_decides_meter_by_meter() -> None:
    cards = [card(input="3", output="15"), card(input="1", cache_write_5m="4", output="20")]

    assert worst_case(1_000, cards, "USD") == WorstCase(4_000_000, 20_000)


def test_the_hold_is_the_prompt_and_every_output_token() -> None:
    assert WorstCase(4_000_000, 20_000).total(100) == 6_000_000


def test_each_output_token_is_rounded_up_to_a_whole_counter_unit() -> None:
    assert worst_case(1, [card(input="0.000001", output="0.000001")], "USD") == WorstCase(1, 1)


def test_a_small_currency_is_held_in_millionths() -> None:
    plan = [card("JPY", input="450", output="2250")]

    assert worst_case(1_000, plan, "JPY") == WorstCase(450_000, 2_250)


def test_a_card_without_output_price_holds_the_prompt_only() -> None:
    assert worst_case(10, [card(input="3")], "USD") == WorstCase(30_000, 0)


def test_a_plan_without_prices_is_a_fault() -> None:
    with pytest.raises(ValueError, match="no worst case"):
        worst_case(10, [], "USD")


def test_prices_of_another_currency_are_never_held() -> None:
    with pytest.raises(ValueError, match=r"prices in EUR, USD cannot be held.*JPY"):
        worst_case(10, [card("USD", input="3"), card("EUR", input="3")], "JPY")
