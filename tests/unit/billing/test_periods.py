from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from billing.periods import MAX_US, PERIODS, Window, hour, month, rfc3339, window

HOUR_US = 3_600_000_000


def us(text: str) -> int:
    seconds = datetime.fromisoformat(text).timestamp()
    return int(seconds) * 1_000_000


def spelt(found: Window) -> tuple[str, str, str]:
    return (found.id, rfc3339(found.start_us), rfc3339(found.end_us))


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        ("day", ("d2026-11-21", "2026-11-20T23:00:00Z", "2026-11-21T23:00:00Z")),
        ("week", ("w2026-47", "2026-11-15T23:00:00Z", "2026-11-22T23:00:00Z")),
        ("month", ("m2026-11", "2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z")),
        ("quarter", ("q2026-4", "2026-09-30T22:00:00Z", "2026-12-31T23:00:00Z")),
        ("total", ("total", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z")),
    ],
)
def test_a_window_is_cut_at_midnights_of_its_zone(period: Any, expected: Any) -> None:
    found = window(period, ZoneInfo("Europe/Berlin"), us("2026-11-21T12:00:00Z"))

    assert spelt(found) == expected


def test_october_in_berlin_has_745_hours_and_its_last_sunday_25() -> None:
    berlin = ZoneInfo("Europe/Berlin")

    october = month("2026-10", berlin)
    sunday = window("day", berlin, us("2026-10-25T12:00:00Z"))

    assert spelt(october) == ("m2026-10", "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z")
    assert october.end_us - october.start_us == 745 * HOUR_US
    assert sunday.end_us - sunday.start_us == 25 * HOUR_US


def test_an_instant_belongs_to_the_month_of_the_tenants_clock() -> None:
    berlin = ZoneInfo("Europe/Berlin")

    assert window("month", berlin, us("2026-10-31T23:00:00Z")).id == "m2026-11"
    assert window("month", berlin, us("2026-10-31T23:00:00Z") - 1).id == "m2026-10"


def test_a_day_in_kolkata_begins_at_half_past_six_in_the_evening() -> None:
    found = window("day", ZoneInfo("Asia/Kolkata"), us("2026-11-21T18:30:00Z"))

    assert spelt(found) == ("d2026-11-22", "2026-11-21T18:30:00Z", "2026-11-22T18:30:00Z")


def test_a_day_whose_midnight_was_skipped_begins_where_the_clock_jumped() -> None:
    cairo = ZoneInfo("Africa/Cairo")

    found = window("day", cairo, us("2026-04-24T12:00:00Z"))

    assert spelt(found) == ("d2026-04-24", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z")


def test_a_date_shown_twice_stays_in_the_window_that_has_begun() -> None:
    st_johns = ZoneInfo("America/St_Johns")
    back_in_the_old_date = us("2010-11-07T02:31:00Z")

    assert datetime.fromtimestamp(back_in_the_old_date // 10**6, st_johns).day == 6
    assert window("day", st_johns, back_in_the_old_date).id == "d2010-11-07"
    assert window("day", st_johns, us("2010-11-07T02:30:00Z")).id == "d2010-11-07"
    assert window("day", st_johns, us("2010-11-07T02:30:00Z") - 1).id == "d2010-11-06"


def test_the_first_days_of_a_year_may_lie_in_a_week_of_the_year_before() -> None:
    assert window("week", ZoneInfo("UTC"), us("2027-01-01T00:00:00Z")).id == "w2026-53"
    assert window("week", ZoneInfo("UTC"), us("2026-02-11T00:00:00Z")).id == "w2026-07"


def test_the_fourth_quarter_ends_with_the_year() -> None:
    found = window("quarter", ZoneInfo("UTC"), us("2026-12-31T23:59:59Z"))

    assert spelt(found) == ("q2026-4", "2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z")


def test_a_month_is_the_window_of_any_of_its_instants() -> None:
    berlin = ZoneInfo("Europe/Berlin")

    assert month("1970-01", ZoneInfo("UTC")).start_us == 0
    assert month("2026-11", berlin) == window("month", berlin, us("2026-11-21T00:00:00Z"))


@pytest.mark.parametrize(
    "text",
    ["2026-13", "1969-12", "2026-00", "2026-1", "26-11", "2026-11-01", "", "0001-01", "9999-12"],
)
def test_a_month_written_otherwise_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write it as 2026-11"):
        month(text, ZoneInfo("UTC"))


def test_an_unknown_period_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="day, week, month, quarter, total"):
        window("decade", ZoneInfo("UTC"), 0)  # type: ignore[arg-type]


def test_every_end_can_be_counted_exactly_in_lua_milliseconds() -> None:
    assert MAX_US // 1_000 < 2**53
    assert len(PERIODS) == 5


def test_times_are_written_in_utc_with_a_fraction_only_where_there_is_one() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00Z"
    assert rfc3339(1_500_000) == "1970-01-01T00:00:01.500000Z"


def test_an_hour_is_that_of_the_utc_clock() -> None:
    at_us = us("2026-11-21T10:59:59Z")

    assert spelt(hour(at_us)) == ("h2026-11-21T10", "2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z")
    assert hour(at_us + 10**6).start_us == hour(at_us).end_us
