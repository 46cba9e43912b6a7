"""The forecast of a window: what it claims, what it never says, and how often it is right."""

import pytest

from billing.forecast import LEAST_DAYS, forecast
from tests.forecasting import CELLS, PICOS, Cell, scores

WHOLE = 10**6
WEEK = [(day % 7, WHOLE) for day in range(7)]


def test_without_a_day_of_history_there_is_no_forecast() -> None:
    assert forecast([], 0, WEEK, 5) is None


def test_below_seven_days_there_is_a_run_rate_and_no_claim() -> None:
    found = forecast([2, 4, 6, 4, 4, 4], 0, [(6, WHOLE // 2), (0, WHOLE), (1, WHOLE)], 100)

    assert found is not None
    assert (found.low_picos, found.middle_picos, found.high_picos) == (105, 110, 115)
    assert (found.claimed, found.days) == (False, 6)


def test_from_seven_days_on_there_is_an_interval() -> None:
    found = forecast([PICOS] * LEAST_DAYS, 0, WEEK, 3 * PICOS)

    assert found is not None
    assert found.claimed
    # Days that were all alike leave nothing to be unsure of.
    assert abs(found.middle_picos - 10 * PICOS) < PICOS // 1000
    assert found.high_picos - found.low_picos < PICOS // 1000


def test_a_few_days_with_spending_among_many_without_are_no_history() -> None:
    found = forecast([90 * PICOS, *[0] * 40], 0, WEEK, 0)

    assert found is not None
    assert not found.claimed


def test_days_without_spending_forecast_none() -> None:
    found = forecast([0] * 30, 0, WEEK, 7)

    assert found is not None
    assert (found.low_picos, found.high_picos, found.claimed) == (7, 7, False)


def test_a_quiet_weekend_is_expected_to_be_quiet() -> None:
    days = ([10 * PICOS] * 5 + [0, 0]) * 4
    weekend, weekdays = [(5, WHOLE), (6, WHOLE)], [(0, WHOLE), (1, WHOLE)]

    quiet, busy = forecast(days, 0, weekend, 0), forecast(days, 0, weekdays, 0)

    assert quiet is not None
    assert busy is not None
    assert quiet.high_picos < 2 * PICOS < 12 * PICOS < busy.middle_picos


def test_only_the_last_eight_weeks_count_on_their_own_weekdays() -> None:
    days = ([10 * PICOS] * 5 + [PICOS, PICOS]) * 8

    assert forecast([999 * PICOS] * 3 + days, 4, WEEK, 0) == forecast(days, 0, WEEK, 0)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_interval_holds_what_it_claims_where_simpler_ones_do_not(cell: Cell) -> None:
    found = scores(cell, 100, 20261122)

    covered = {name: each.covered for name, each in found.items()}
    if (cell.history, cell.step is None) != (7, False):
        assert 0.70 <= covered["ours"] <= 0.95 + (cell.step is not None) * 0.05
    assert covered["ours"] > max(covered["run rate"], covered["seasonal naive"]) + 0.15
