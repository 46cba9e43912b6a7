"""Laws of owned hardware: parts make the whole, busier is cheaper, and a price covers its cost."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.meters import Meters
from billing.money import PICOS_PER_UNIT
from billing.tco import (
    Profile,
    break_even,
    busy_seconds,
    cost_prices,
    faults,
    hourly,
    unit_costs,
)

relaxed = settings(deadline=None)
SHARES = st.integers(1, 1000).map(lambda thousandths: Fraction(thousandths, 1000))


def decimals(least: int, most: int, places: int = 3) -> st.SearchStrategy[str]:
    """Text of numbers from least to most, both in units of 10^-places."""
    return st.integers(least, most).map(lambda n: f"{n // 10**places}.{n % 10**places:0{places}d}")


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    capex = draw(st.integers(1, 10**7))
    busy = draw(st.integers(0, 20_000))
    return Profile(
        currency="USD",
        capex=str(capex),
        salvage=str(draw(st.integers(0, capex))),
        life_years=draw(st.integers(1, 10)),
        cost_of_capital=draw(decimals(0, 300)),
        rent_per_hour=draw(decimals(0, 100_000)),
        power_busy_watts=busy,
        power_idle_watts=draw(st.integers(0, busy)),
        pue=draw(decimals(1000, 3000)),
        electricity_per_kwh=draw(decimals(0, 1000)),
        operations_per_year=draw(decimals(1, 10**9)),
        planned_utilisation=draw(decimals(1, 1000)),
        prefill_tokens_per_second=draw(decimals(1000, 10**9)),
        decode_tokens_per_second=draw(decimals(1000, 10**9)),
        cached_ratio=draw(decimals(0, 1000)),
    )


@relaxed
@given(profiles())
def test_what_the_planned_hours_earn_at_cost_is_what_every_hour_costs(profile: Profile) -> None:
    """Busy seconds at the unit cost pay for the idle ones too: nothing is left over."""
    assert faults(profile) == ()
    u = Fraction(profile.planned_utilisation)
    output = unit_costs(profile).output
    assert output is not None

    decoded_an_hour = u * 3600 * Fraction(profile.decode_tokens_per_second or "0")

    assert output * decoded_an_hour == hourly(profile).total


@relaxed
@given(profiles(), SHARES, SHARES)
def test_a_busier_box_never_has_a_dearer_token(profile: Profile, u: Fraction, v: Fraction) -> None:
    idle, busy = unit_costs(profile, min(u, v)), unit_costs(profile, max(u, v))

    assert busy.input <= idle.input
    assert busy.cached_input <= busy.input
    assert (busy.output or 0) <= (idle.output or 0)


@relaxed
@given(profiles())
def test_a_price_covers_its_cost_by_less_than_a_pico(profile: Profile) -> None:
    costs = unit_costs(profile)
    for meter, picos in cost_prices(profile).items():
        exact = {"input": costs.input, "cache_read": costs.cached_input, "output": costs.output}
        cost = (exact[meter.value] or Fraction(0)) * PICOS_PER_UNIT
        assert cost <= picos < cost + 1


@relaxed
@given(
    profiles(),
    st.builds(Meters, *[st.integers(0, 10**6)] * 4, st.integers(1, 10**6)),
    st.integers(1, 10**12),
)
def test_above_the_break_even_the_box_is_the_cheaper_one(
    profile: Profile, work: Meters, hosted: int
) -> None:
    def own(u: Fraction) -> Fraction:
        seconds = busy_seconds(profile, work)
        return hourly(profile, u).total / (u * 3600) * seconds * PICOS_PER_UNIT

    even = break_even(profile, work, hosted)

    if even is None:
        assert own(Fraction(1)) > hosted
    else:
        assert own(even) == hosted
        assert own((even + 1) / 2) <= hosted
        assert own(even / 2) >= hosted
