"""The cost of a box by the hour and by the token, on published figures and on the edges."""

from fractions import Fraction

import msgspec
import pytest

from billing.boxes import BOXES, filled
from billing.meters import Meter, Meters
from billing.prices import picos_per_token
from billing.tco import (
    HOURS_PER_YEAR,
    Profile,
    break_even,
    busy_seconds,
    cost_prices,
    faults,
    hourly,
    kilowatt_hours,
    kwh_per_million,
    unit_costs,
)

GIGA = 10**9


def told(value: Fraction, decimals: int) -> str:
    """As people print it."""
    return f"{float(value):.{decimals}f}"


def rented(**changes: str | int | None) -> Profile:
    """8 GPUs at 2 an hour each, always busy: all that is paid is the rent."""
    box = Profile(
        currency="USD",
        capex="0",
        life_years=4,
        cost_of_capital="0.08",
        power_busy_watts=0,
        power_idle_watts=0,
        pue="1",
        electricity_per_kwh="0",
        operations_per_year="0",
        planned_utilisation="1",
        rent_per_hour="16",
        prefill_tokens_per_second="73700",
        decode_tokens_per_second="14800",
    )
    return msgspec.structs.replace(box, **changes)


def test_the_published_day_of_a_large_service_is_reproduced() -> None:
    """608 G tokens in, 56.3 % of them cache hits, 168 G out, 73,700 and 14,800 tokens a second a
    node. They told 226.75 nodes on average and 87,072 dollars at 2 a GPU hour.
    """
    # Their input rate counts the hits, so here every input token is one that was "prefilled".
    day = Meters(input=608 * GIGA, output=168 * GIGA)
    box = rented()

    seconds = busy_seconds(box, day)
    costs = unit_costs(box)

    assert told(Fraction(busy_seconds(box, Meters(input=day.input)), 86_400), 1) == "95.5"
    assert told(Fraction(busy_seconds(box, Meters(output=day.output)), 86_400), 1) == "131.4"
    assert told(Fraction(seconds, 86_400), 1) == "226.9"
    cost = day.input * costs.input + day.output * (costs.output or 0)
    assert told(cost, 0) == "87116"
    assert abs(cost - 87_072) / 87_072 < Fraction(1, 1000)
    assert told(costs.input * 10**6, 3) == "0.060"
    assert told(costs.input * 10**6 / (1 - Fraction(563, 1000)), 3) == "0.138"
    assert told((costs.output or 0) * 10**6, 3) == "0.300"
    assert told((costs.output or 0) / costs.input, 0) == "5"


def test_an_hour_of_the_large_server_is_capital_before_all_else() -> None:
    found = hourly(BOXES["h100"].profile)

    assert [told(part, 2) for part in (found.capital, found.operations, found.energy)] == [
        "8.59", "3.20", "0.74"
    ]  # fmt: skip
    assert found.rent == 0


@pytest.mark.parametrize(
    ("utilisation", "a_million"),
    [("0.1", "5.03"), ("0.2", "2.53"), ("0.35", "1.46"), ("0.5", "1.03"), ("0.7", "0.75"),
     ("1", "0.53")],
)  # fmt: skip
def test_utilisation_decides_what_a_token_costs(utilisation: str, a_million: str) -> None:
    rates = {"prefill_tokens_per_second": "34000", "decode_tokens_per_second": "6800"}
    box = filled("h100", rates)

    output = unit_costs(box, Fraction(utilisation)).output

    assert output is not None
    assert told(output * 10**6, 2) == a_million


def test_a_price_is_rounded_up_to_a_whole_pico_a_token() -> None:
    """16 / 3600 / 73,700 is 60,304.5...e-12; a tenth of it 6,030.45...e-12."""
    assert cost_prices(rented()) == {
        Meter.INPUT: picos_per_token("0.060305"),
        Meter.CACHE_READ: picos_per_token("0.006031"),
        Meter.OUTPUT: picos_per_token("0.300301"),
    }
    exact = rented(rent_per_hour="3.6", prefill_tokens_per_second="1000", cached_ratio="0.5")
    assert cost_prices(exact)[Meter.INPUT] == picos_per_token("1")
    assert cost_prices(exact)[Meter.CACHE_READ] == picos_per_token("0.5")


def test_a_box_that_decodes_nothing_has_no_price_of_output() -> None:
    assert Meter.OUTPUT not in cost_prices(rented(decode_tokens_per_second=None))
    with pytest.raises(ValueError, match="decode_tokens_per_second is not known"):
        busy_seconds(rented(decode_tokens_per_second=None), Meters(output=1))
    with pytest.raises(ValueError, match="prefill_tokens_per_second is not known"):
        cost_prices(rented(prefill_tokens_per_second=None))


def test_a_price_beyond_what_a_price_can_be_is_refused() -> None:
    with pytest.raises(ValueError, match="more than a price can be"):
        cost_prices(rented(prefill_tokens_per_second="0.0000001"))


def test_money_that_costs_nothing_is_spread_evenly() -> None:
    box = filled("edge", {"cost_of_capital": "0", "salvage": "0"})

    assert hourly(box).capital == Fraction(4000, 4 * HOURS_PER_YEAR)


def test_at_the_break_even_the_box_costs_what_the_hosted_service_asks() -> None:
    rates = {"prefill_tokens_per_second": "34000", "decode_tokens_per_second": "6800"}
    box, work = filled("h100", rates), Meters(input=1000, cache_read=500, output=300)
    hosted = 1000 * 500_000 + 500 * 50_000 + 300 * 1_500_000  # 0.50, 0.05 and 1.50 a million

    utilisation = break_even(box, work, hosted)

    assert utilisation is not None
    costs = unit_costs(box, utilisation)
    own = 1000 * costs.input + 500 * costs.cached_input + 300 * (costs.output or 0)
    assert own == Fraction(hosted, 10**12)
    assert break_even(box, work, hosted // 100) is None
    assert break_even(box, work, 0) is None


def test_energy_of_a_million_tokens() -> None:
    """7 kW x 1.54 / 6,800 tokens a second: 1.6 J a token."""
    energy = kwh_per_million(BOXES["h100"].profile, "6800")

    assert told(energy * 3_600_000 / 10**6, 1) == "1.6"
    assert told(energy, 2) == "0.44"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("capex", "1e6", "not a decimal amount"),
        ("capex", "-1", "is negative"),
        ("planned_utilisation", "0", "above 0 and at most 1"),
        ("planned_utilisation", "1.01", "above 0 and at most 1"),
        ("life_years", 0, "is not a life"),
        ("life_years", 31, "is not a life"),
        ("salvage", "280001", "more than capex"),
        ("cost_of_capital", "8", "more than 1"),
        ("cached_ratio", "1.5", "more than 1"),
        ("pue", "0.9", "below 1"),
        ("power_idle_watts", 7001, "between 0 and power_busy_watts"),
        ("power_idle_watts", -1, "between 0 and power_busy_watts"),
        ("prefill_tokens_per_second", "0", "never ends"),
        ("decode_tokens_per_second", "0.0", "never ends"),
        ("currency", "XXX", "not a currency"),
    ],
)
def test_a_profile_that_cannot_be_is_refused_by_field(
    field: str, value: str | int, message: str
) -> None:
    box = msgspec.structs.replace(BOXES["h100"].profile, **{field: value})

    (fault,) = faults(box)

    assert fault.field == field
    assert message in fault.message
    assert fault.remedy


def test_a_box_that_costs_nothing_is_refused() -> None:
    assert [fault.field for fault in faults(rented(rent_per_hour="0"))] == ["capex"]


def test_what_a_box_draws_in_a_day_is_that_of_the_room() -> None:
    """6 h at 7.0 kW and 18 h at 2.4, times 1.54."""
    hour_us = 3_600_000_000

    drawn = kilowatt_hours(BOXES["h100"].profile, 6 * hour_us, 24 * hour_us)

    assert drawn == Fraction("131.208")
