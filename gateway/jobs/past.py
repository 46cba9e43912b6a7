"""The past of a budget, as alerts need it: hours of the week, and days on the tenant's clock."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from billing.alerts import DAY_US, HOUR_US, hours_of_week
from billing.forecast import MOST_DAYS, Forecast, forecast
from billing.periods import Window, window
from gateway.stores.sql.rows import Budget
from gateway.stores.sql.spending import Spent

SPAN_US: Final = (MOST_DAYS + 1) * DAY_US

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FORESEEN: Final = ("week", "month", "quarter")
_SHARE: Final = 10**6
_LEARNT_HOURS: Final = 28 * 24


class Past(msgspec.Struct, frozen=True):
    """`rest`: what the rest of the window will cost, in counter units; None: nobody knows."""

    week: tuple[int, ...]
    rest: Forecast | None

    def at_the_end(self, spent: int) -> Forecast | None:
        """What the window will have cost, when so much is spent now."""
        if self.rest is None:
            return None
        low, middle, high = self.rest.low_picos, self.rest.middle_picos, self.rest.high_picos
        return msgspec.structs.replace(
            self.rest,
            low_picos=low + spent,
            middle_picos=middle + spent,
            high_picos=high + spent,
        )


def past(budget: Budget, span: Window, spent: Iterable[Spent], zone: ZoneInfo, at_us: int) -> Past:
    """Of what the budget counts, in the window `span`. An hour belongs to the day in which it
    begins; the first day is that on which something was spent.
    """
    today = _date(at_us, zone)
    hours: dict[int, int] = {}
    for one in spent:
        if _counts(budget, one):
            hours[one.hour] = hours.get(one.hour, 0) + one.counter_nanos
    totals: dict[int, int] = {}
    for hour, amount in hours.items():
        day = _date(hour * HOUR_US, zone)
        totals[day] = totals.get(day, 0) + amount
    before = [day for day in totals if day < today]
    first = max(min(before, default=today), today - MOST_DAYS)
    recent = [(hour, amount) for hour, amount in hours.items() if hour >= _since(at_us)]
    days = [totals.get(day, 0) for day in range(first, today)]
    rest = None
    if budget.period in _FORESEEN:
        # The first of January of the year 1 was a Monday.
        rest = forecast(days, (first - 1) % 7, tuple(_ahead(span, zone, at_us)), 0)
    return Past(hours_of_week(recent, today - first), rest)


def _ahead(span: Window, zone: ZoneInfo, at_us: int) -> Sequence[tuple[int, int]]:
    found = []
    while at_us < span.end_us:
        day = window("day", zone, at_us)
        share = (day.end_us - at_us) * _SHARE // (day.end_us - day.start_us)
        found.append(((_date(at_us, zone) - 1) % 7, share))
        at_us = day.end_us
    return found


def _since(at_us: int) -> int:
    return at_us // HOUR_US - _LEARNT_HOURS


def _counts(budget: Budget, one: Spent) -> bool:
    match budget.scope_kind:
        case "tenant":
            return True
        case "team":
            return budget.scope_id in one.team_path.split("/")
        case _:
            return budget.scope_id == one.key_id


def _date(at_us: int, zone: ZoneInfo) -> int:
    return (_EPOCH + timedelta(microseconds=at_us)).astimezone(zone).toordinal()
