"""Who is told what about a budget, and when nobody is."""

import msgspec
import pytest

from billing.alerts import (
    DAY_US,
    HOUR_US,
    PACES,
    Finding,
    Watched,
    findings,
    hours_of_week,
    planned,
)
from billing.forecast import Forecast

EVEN = (1,) * 168
MONDAY_US = 4 * DAY_US  # the fifth of January 1970
MONTH = Watched(
    cap=100_000,
    spent=0,
    start_us=MONDAY_US,
    end_us=MONDAY_US + 30 * DAY_US,
    at_us=MONDAY_US + 15 * DAY_US,
    thresholds=(50, 80, 100),
    hard=True,
)


def quiet(**spent: int) -> dict[int, int]:
    """Spent in the last `h1`, `m5`, ... ; nothing where nothing is said."""
    units = {"m": 60_000_000, "h": HOUR_US, "d": DAY_US}
    spans = {us: 0 for pace in PACES for us in (pace.long_us, pace.short_us)}
    return spans | {units[name[0]] * int(name[1:]): each for name, each in spent.items()}


def told(watched: Watched, spent_since: dict[int, int], least: int = 0) -> list[str]:
    found = findings(watched, spent_since, EVEN, None, least)
    return [f"{each.rule} {each.mark}" for each in found]


@pytest.mark.parametrize(
    ("spent", "marks"),
    [(49_999, []), (50_000, ["50"]), (80_000, ["80"]), (99_999, ["80"]), (250_000, ["100"])],
)
def test_the_highest_threshold_that_is_passed_is_told(spent: int, marks: list[str]) -> None:
    watched = msgspec.structs.replace(MONTH, spent=spent)

    found = findings(watched, quiet(), EVEN, None, 0)

    assert [(each.rule, each.mark) for each in found] == [("threshold", m) for m in marks]


def test_a_budget_of_nothing_is_told_of_once_something_is_spent() -> None:
    nothing = msgspec.structs.replace(MONTH, cap=0)

    assert told(nothing, quiet()) == []
    assert told(msgspec.structs.replace(nothing, spent=1), quiet()) == ["threshold 100"]


def test_speed_counts_only_when_both_windows_are_too_fast() -> None:
    """An hour of a month of 720 is planned to cost 138.9; 14.4 times that is 2 % of the budget."""
    assert told(MONTH, quiet(h1=2_001, m5=167)) == ["burn_rate 1h"]
    assert told(MONTH, quiet(h1=2_001, m5=166)) == []
    assert told(MONTH, quiet(h1=2_000, m5=167)) == []
    assert told(MONTH, quiet(h6=5_001, m30=417)) == ["burn_rate 6h"]
    assert told(MONTH, quiet(d3=15_001, h6=1_251)) == ["burn_rate 3d"]


def test_the_fastest_pace_speaks_for_all() -> None:
    everything = quiet(h1=9_000, m5=9_000, h6=9_000, m30=9_000, d3=90_000)

    assert told(MONTH, everything) == ["burn_rate 1h"]


def test_small_money_is_not_worth_a_word() -> None:
    small = msgspec.structs.replace(MONTH, cap=100)

    assert told(small, quiet(h1=50, m5=50), least=51) == []
    assert told(small, quiet(h1=51, m5=51), least=51) == ["burn_rate 1h"]


def test_a_day_is_too_short_for_paces_of_days() -> None:
    day = msgspec.structs.replace(
        MONTH, start_us=MONTH.at_us - HOUR_US, end_us=MONTH.at_us + 23 * HOUR_US
    )

    assert told(day, quiet(d3=99_000, h6=99_000)) == []
    assert told(day, quiet(h1=99_000, m5=99_000)) == ["burn_rate 1h"]


@pytest.mark.parametrize(
    ("spent", "mark", "after_us"),
    [
        (quiet(h1=9_000, m5=9_000), "1h", HOUR_US),
        (quiet(h6=9_000, m30=9_000), "6h", 6 * HOUR_US),
        (quiet(d3=99_000, h6=9_000), "3d", 3 * DAY_US),
    ],
)
def test_a_window_that_has_just_begun_has_no_pace(
    spent: dict[int, int], mark: str, after_us: int
) -> None:
    """What the last hour cost was planned for the month before."""
    early, begun = (
        msgspec.structs.replace(MONTH, at_us=MONTH.start_us + us) for us in (after_us - 1, after_us)
    )

    assert told(early, spent) == []
    assert told(begun, spent) == [f"burn_rate {mark}"]


def test_a_budget_without_an_end_has_no_pace() -> None:
    total = msgspec.structs.replace(MONTH, start_us=0, end_us=2**57)

    assert told(total, quiet(h1=99_000, m5=99_000)) == []


def test_a_busy_hour_that_is_always_busy_is_no_alarm() -> None:
    """All of the week's money is spent from Monday 0:00 to 1:00."""
    hourly = [(96 + 168 * week, 25_000) for week in range(4)]
    week = hours_of_week(hourly, days=28)
    at_one = msgspec.structs.replace(MONTH, at_us=MONDAY_US + 14 * DAY_US + HOUR_US)
    spent = quiet(h1=12_000, m5=1_000, h6=12_000, m30=6_000)

    assert [each.mark for each in findings(at_one, spent, EVEN, None, 0)] == ["1h"]
    assert findings(at_one, spent, week, None, 0) == ()
    amount, parts = planned(at_one, week, HOUR_US)
    assert 15_000 < amount // parts < 20_000


def test_hours_are_alike_until_there_is_a_past() -> None:
    assert hours_of_week([(5, 100)], days=13) == EVEN
    assert hours_of_week([], days=90) == EVEN


def seen(low: int, middle: int, high: int, *, claimed: bool = True) -> Forecast:
    return Forecast(low, middle, high, claimed, 28)


def test_a_forecast_beyond_the_budget_is_told_as_likely_or_near_the_end_as_possible() -> None:
    late = msgspec.structs.replace(MONTH, at_us=MONTH.end_us - 7 * DAY_US)

    def foretold(watched: Watched, forecast: Forecast) -> tuple[Finding, ...]:
        return findings(watched, quiet(), EVEN, forecast, 0)

    likely, possible = seen(80_000, 100_000, 120_000), seen(80_000, 99_999, 100_000)
    assert foretold(MONTH, likely) == (Finding("forecast", "likely", 100_000, 100_000),)
    assert foretold(MONTH, possible) == ()
    assert foretold(late, possible) == (Finding("forecast", "possible", 100_000, 100_000),)
    assert foretold(late, seen(80_000, 90_000, 99_999)) == ()


def test_without_a_claim_nothing_is_foretold_and_nothing_once_it_is_spent() -> None:
    unsure, spent = seen(0, 900_000, 900_000, claimed=False), seen(1, 900_000, 900_000)
    gone = msgspec.structs.replace(MONTH, spent=100_000, thresholds=())

    assert findings(MONTH, quiet(), EVEN, unsure, 0) == ()
    assert findings(gone, quiet(), EVEN, spent, 0) == ()
