"""Laws of idle capacity: parts add up, whatever the rule; what tokens bear and what idles is all
that a box costs.
"""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.idle import IDLE, RULES, absorbed, spread
from billing.money import PICOS_PER_UNIT
from billing.observed import MINUTE_US, Work, minutes
from billing.tco import hourly, kilowatt_hours
from tests.property.test_tco import profiles

relaxed = settings(deadline=None, max_examples=60)
WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 10**9), max_size=6)
HOUR_US = 3_600_000_000


@relaxed
@given(st.integers(-(10**18), 10**18), st.sampled_from(RULES), WEIGHTS)
def test_the_parts_add_up_to_what_is_spread(picos: int, rule: str, weights: dict[str, int]) -> None:
    parts = spread(picos, rule, weights)  # type: ignore[arg-type]

    assert sum(parts.values()) == picos
    assert parts == spread(picos, rule, dict(reversed(weights.items())))  # type: ignore[arg-type]
    assert all(part * picos >= 0 for part in parts.values()), "nobody gains where others pay"
    assert {name: -part for name, part in parts.items()} == spread(-picos, rule, weights)  # type: ignore[arg-type]


@relaxed
@given(st.integers(0, 10**18), WEIGHTS)
def test_by_busy_seconds_nobody_bears_more_than_his_share_and_a_pico(
    picos: int, weights: dict[str, int]
) -> None:
    whole, parts = sum(weights.values()), spread(picos, "busy", weights)

    if not whole:
        assert parts == {IDLE: picos}
        return
    for name, part in parts.items():
        assert abs(part - Fraction(picos * weights[name], whole)) < 1


@relaxed
@given(profiles(), st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**15))
def test_what_tokens_bear_and_what_idles_is_all_that_the_box_costs(
    profile: object, span_s: int, busy_s: int, cost: int
) -> None:
    span_us, busy_us = span_s * 10**6, busy_s * 10**6

    found = absorbed(profile, span_us, busy_us, cost)  # type: ignore[arg-type]

    u = Fraction(min(busy_s, span_s), span_s)
    exact = hourly(profile, u).total * PICOS_PER_UNIT * span_us / HOUR_US  # type: ignore[arg-type]
    assert found.absorbed_picos + found.variance_picos == found.actual_picos
    assert 0 <= found.actual_picos - exact < 1


@relaxed
@given(profiles(), st.integers(0, 10**6), st.integers(1, 10**6))
def test_energy_of_two_spans_is_the_energy_of_both(
    profile: object, busy_s: int, span_s: int
) -> None:
    busy_us, span_us = min(busy_s, span_s) * 10**6, span_s * 10**6
    idle = kilowatt_hours(profile, 0, span_us)  # type: ignore[arg-type]
    once = kilowatt_hours(profile, busy_us, span_us)  # type: ignore[arg-type]

    assert idle + once == kilowatt_hours(profile, busy_us, 2 * span_us)  # type: ignore[arg-type]


@relaxed
@given(
    st.lists(
        st.tuples(*[st.integers(0, 4 * MINUTE_US)] * 3, *[st.integers(0, 1000)] * 3), max_size=12
    )
)
def test_minutes_lose_nothing_and_are_never_longer_than_a_minute(
    drawn: list[tuple[int, int, int, int, int, int]],
) -> None:
    works = sorted(
        (Work(*sorted(each[:3]), *each[3:]) for each in drawn), key=lambda work: work.started_us
    )
    told = [work for work in works if work.ended_us > work.started_us]

    found = minutes(works, 0, 5 * MINUTE_US)

    assert sum(each.prefilled for each in found) == sum(work.prefilled for work in told)
    assert sum(each.cached for each in found) == sum(work.cached for work in told)
    assert sum(each.decoded for each in found) == sum(work.decoded for work in told)
    assert sum(each.requests for each in found) == len(told)
    together = sum(work.ended_us - work.started_us for work in told)
    assert sum(each.in_flight_us for each in found) == together
    assert all(0 <= each.busy_us <= min(MINUTE_US, each.in_flight_us) for each in found)
