import pytest

from billing.meters import Meter, Meters
from billing.money import format_picos
from billing.prices import Rate, RateCard
from billing.rating import RatedLine, UnpricedMeterError, lines, rate, tariff
from tests.unit.billing.samples import card

CHAT = card(input="3", cache_read="0.3", cache_write_5m="3.75", output="15")


def test_cached_tokens_are_charged_once_and_reasoning_is_inside_the_output() -> None:
    usage = Meters(input=400, cache_read=600, output=200)

    assert format_picos(rate(usage, CHAT)) == "0.00438"


def test_a_single_token_of_the_cheapest_price_is_not_lost() -> None:
    assert rate(Meters(input=1), card(input="0.000001")) == 1


def test_a_line_names_its_version_and_lines_without_tokens_are_left_out() -> None:
    assert lines(Meters(input=2, output=3), CHAT) == (
        RatedLine(Meter.INPUT, 2, 3_000_000, "v_input", 6_000_000),
        RatedLine(Meter.OUTPUT, 3, 15_000_000, "v_output", 45_000_000),
    )


def test_a_meter_without_a_price_of_its_own_keeps_its_name_on_the_line() -> None:
    (line,) = lines(Meters(cache_write_1h=10), CHAT)

    assert (line.meter, line.version) == (Meter.CACHE_WRITE_1H, "v_input")


def test_no_tokens_come_to_nothing() -> None:
    assert rate(Meters(), CHAT) == 0
    assert lines(Meters(), CHAT) == ()


def test_output_without_a_price_is_refused_rather_than_free() -> None:
    embeddings = card(input="0.02")

    assert rate(Meters(input=5), embeddings) == 100_000
    with pytest.raises(UnpricedMeterError, match="1 output tokens cannot be rated"):
        rate(Meters(input=5, output=1), embeddings)


def test_a_tariff_rates_as_its_card_does_cache_meters_falling_back_to_input() -> None:
    usage = Meters(input=10, cache_read=20, cache_write_5m=30, cache_write_1h=40, output=50)
    plain = card(input="3", output="15")

    assert tariff(plain).of(usage) == rate(usage, plain) == (100 * 3 + 50 * 15) * 10**6
    assert tariff(CHAT).of(usage) == sum(line.amount_picos for line in lines(usage, CHAT))


def test_a_card_without_an_input_price_is_no_tariff() -> None:
    with pytest.raises(UnpricedMeterError):
        tariff(RateCard("rc_x", "USD", (Rate(Meter.OUTPUT, 15, "p2"),)))
