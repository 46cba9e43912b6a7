"""Budget windows and invoice months: half-open spans of time that tile a time zone's calendar."""

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final, Literal, get_args
from zoneinfo import ZoneInfo

import msgspec

Period = Literal["day", "week", "month", "quarter", "total"]
PERIODS: Final[tuple[Period, ...]] = get_args(Period)

MAX_US: Final = 253_402_300_799_000_000  # 9999-12-31T23:59:59Z: the end of `total`

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MONTH: Final = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")


class Window(msgspec.Struct, frozen=True):
    """start_us <= at < end_us, microseconds UTC. The id is unique among the windows of one zone."""

    id: str  # h2026-11-21T10 | d2026-11-21 | w2026-47 | m2026-11 | q2026-4 | total
    start_us: int
    end_us: int


TOTAL: Final = Window("total", 0, MAX_US)
_HOUR_US: Final = 3_600_000_000


def window(period: Period, zone: ZoneInfo, at_us: int) -> Window:
    """The window that holds `at_us`. Weeks are ISO weeks. A day begins at the first instant its
    date is on the clock, so it has 23 or 25 hours where the clock is changed. ValueError for an
    unknown period. Costs some microseconds: keep the answer until `end_us`.
    """
    if period == "total":
        return TOTAL
    day = (_EPOCH + at_us * _MICROSECOND).astimezone(zone).date()
    found = _window_of(period, zone, day)
    if at_us >= found.end_us:
        # Clocks that go back over midnight (St John's, until 2011) show the old date a second time;
        # the new window has begun by then and does not end again.
        found = _window_of(period, zone, day + timedelta(days=1))
    return found


def hour(at_us: int) -> Window:
    """The hour of the UTC clock that holds `at_us`: that of every clock which is whole hours away
    from it, and of the same length on every day.
    """
    start_us = at_us - at_us % _HOUR_US
    at = _EPOCH + start_us * _MICROSECOND
    return Window(f"h{at:%Y-%m-%dT%H}", start_us, start_us + _HOUR_US)


def month(text: str, zone: ZoneInfo) -> Window:
    """The window of a month written `2026-11`. ValueError when it is written otherwise."""
    match = _MONTH.fullmatch(text)
    if match is None or not 1970 <= int(match[1]) <= 9998:
        raise ValueError(f"{text!r:.20} is not a month; write it as 2026-11")
    return _window_of("month", zone, date(int(match[1]), int(match[2]), 1))


def days(first: date, last: date, zone: tzinfo) -> Window:
    """From the first instant of one day to the end of another."""
    return _span(f"d{first.isoformat()}", zone, first, last + timedelta(days=1))


def rfc3339(at_us: int) -> str:
    """`2026-11-01T00:00:00Z`, with six decimals unless the second is whole."""
    at = _EPOCH + at_us * _MICROSECOND
    return at.replace(tzinfo=None).isoformat() + "Z"


def _window_of(period: Period, zone: tzinfo, day: date) -> Window:
    match period:
        case "day":
            return _span(f"d{day.isoformat()}", zone, day, day + timedelta(days=1))
        case "week":
            year, week, weekday = day.isocalendar()
            monday = day - timedelta(days=weekday - 1)
            return _span(f"w{year:04d}-{week:02d}", zone, monday, monday + timedelta(days=7))
        case "month":
            first = day.replace(day=1)
            return _span(f"m{day.year:04d}-{day.month:02d}", zone, first, _months_on(first, 1))
        case "quarter":
            quarter = (day.month + 2) // 3
            first = date(day.year, 3 * quarter - 2, 1)
            return _span(f"q{day.year:04d}-{quarter}", zone, first, _months_on(first, 3))
        case _:
            raise ValueError(f"{period!r} is not a period; there are {', '.join(PERIODS)}")


def _span(window_id: str, zone: tzinfo, first: date, end: date) -> Window:
    return Window(window_id, _midnight_us(first, zone), _midnight_us(end, zone))


def _midnight_us(day: date, zone: tzinfo) -> int:
    # fold=0 means the first of two midnights, and where there is none the instant it was skipped.
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    return (midnight - _EPOCH) // _MICROSECOND


def _months_on(first: date, months: int) -> date:
    years, month0 = divmod(first.month - 1 + months, 12)
    return date(first.year + years, month0 + 1, 1)
