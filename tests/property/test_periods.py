"""Laws of periods, in every zone there is: windows tile time, and hold the instant they are for."""

from zoneinfo import ZoneInfo, available_timezones

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.periods import Period, month, window
from billing.rollups import BUCKET_US

ZONES = st.sampled_from(sorted(available_timezones())).map(ZoneInfo)
CALENDAR: st.SearchStrategy[Period] = st.sampled_from(["day", "week", "month", "quarter"])
DAY_US = 86_400_000_000
INSTANTS = st.integers(172_800_000_000, 4_102_444_800_000_000)  # 1970 to 2100
SINCE_2020 = st.integers(1_577_836_800_000_000, 4_102_444_800_000_000)
relaxed = settings(deadline=None, max_examples=300)


@relaxed
@given(CALENDAR, ZONES, INSTANTS)
def test_a_window_holds_its_instant_and_is_found_from_any_of_its_own(
    period: Period, zone: ZoneInfo, at_us: int
) -> None:
    found = window(period, zone, at_us)

    assert found.start_us <= at_us < found.end_us
    assert window(period, zone, found.end_us - 1) == found
    assert window(period, zone, found.start_us).start_us == found.start_us


@relaxed
@given(CALENDAR, ZONES, INSTANTS)
def test_the_next_window_begins_where_this_one_ends(
    period: Period, zone: ZoneInfo, at_us: int
) -> None:
    found = window(period, zone, at_us)
    following = window(period, zone, found.end_us)

    assert following.start_us == found.end_us
    assert following.id > found.id


@relaxed
@given(ZONES, INSTANTS)
def test_a_month_is_made_of_whole_days_and_a_quarter_of_whole_months(
    zone: ZoneInfo, at_us: int
) -> None:
    pairs: list[tuple[Period, Period]] = [("month", "day"), ("week", "day"), ("quarter", "month")]
    for outer, inner in pairs:
        whole = window(outer, zone, at_us)
        assert window(inner, zone, whole.start_us).start_us == whole.start_us
        assert window(inner, zone, whole.end_us).start_us == whole.end_us


@relaxed
@given(ZONES, INSTANTS)
def test_a_month_by_name_is_the_month_of_its_instants(zone: ZoneInfo, at_us: int) -> None:
    found = window("month", zone, at_us)

    assert month(found.id.removeprefix("m"), zone) == found


@relaxed
@given(CALENDAR, ZONES, SINCE_2020)
def test_windows_begin_on_the_edge_of_a_rollup_bucket(
    period: Period, zone: ZoneInfo, at_us: int
) -> None:
    assert window(period, zone, at_us).start_us % BUCKET_US == 0


@relaxed
@given(ZONES, SINCE_2020)
def test_a_day_is_a_day_give_or_take_a_change_of_clocks(zone: ZoneInfo, at_us: int) -> None:
    found = window("day", zone, at_us)

    assert abs(found.end_us - found.start_us - DAY_US) <= 3 * 3_600_000_000
