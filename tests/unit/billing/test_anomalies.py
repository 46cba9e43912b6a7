"""Who spends unlike himself is found; who merely has a Monday is not."""

import random

import pytest

from billing.anomalies import LEARNT_DAYS, Anomaly, anomaly
from tests.forecasting import tenant

WEEK = [100, 110, 105, 95, 100, 10, 8]


def weeks(count: int) -> list[int]:
    return WEEK * count


def test_a_day_like_its_weekday_is_nothing_and_one_five_times_as_dear_is() -> None:
    assert anomaly([*weeks(4), 104], 1) is None

    found = anomaly([*weeks(4), 500], 1)

    assert found == Anomaly(amount=500, expected=found.expected if found else 0, days=28)
    assert found is not None
    assert 80 < found.expected < 110, "about a Monday, a little nearer to the other days"


def test_what_is_usual_on_a_monday_is_much_on_a_sunday() -> None:
    assert anomaly([*weeks(4)[:-1], 110], 1) is not None
    assert anomaly([*weeks(4), 110], 1) is None


@pytest.mark.parametrize("days", [[], [5], [100] * 13 + [5_000], [0] * 30 + [100] * 8 + [5_000]])
def test_of_too_little_history_nothing_is_said(days: list[int]) -> None:
    assert anomaly(days, 1) is None


def test_money_below_the_least_is_not_worth_a_word() -> None:
    days = [*weeks(4), 500]

    assert anomaly(days, 401 + 20) is None
    assert anomaly(days, 300) is not None


def test_one_bad_day_of_the_past_hides_none_of_today() -> None:
    days = weeks(5)
    days[20] = 3_000

    assert anomaly([*days, 700], 1) is not None


def test_days_without_spending_are_days() -> None:
    days = [0, 0, *([100, 0] * 10), 100]

    assert anomaly(days, 1) is None


def test_on_simulated_tenants_it_is_silent_until_something_happens() -> None:
    """Fifty of them: weekly pattern, growth, lasting noise."""
    draw, told = random.Random(20261122), {1: 0, 3: 0, 10: 0}
    for _ in range(50):
        days = [int(each * 1000) for each in tenant(draw, LEARNT_DAYS + 1, None)]
        for factor in told:
            told[factor] += anomaly([*days[:-1], days[-1] * factor], 1) is not None

    assert told[1] <= 1
    assert told[3] >= 30
    assert told[10] == 50
