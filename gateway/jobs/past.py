"""The past of a budget, as alerts need it: hours of the week, and days on the tenant's clock."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from billing.alerts import DAY_US, HOUR_US, hours_of_week
from billing.forecast import MOST_DAYS, Forecast, days_left, forecast
from billing.periods import Window
from gateway.stores.sql.rows import Budget
from gateway.stores.sql.spending import Spent

SPAN_US: Final = (MOST_DAYS + 1) * DAY_US

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FORESEEN: Final = ("week", "month", "quarter")
_LEARNT_HOURS: Final = 28 * 24


class Past(msgspec.Struct, frozen=True):
    """`end`: what the window will have cost, seen from when this was read; None: nobody knows."""

    week: tuple[int, ...]
    end: Forecast | None

    def foreseen(self, spent: int) -> Forecast | None:
        """The same when so much is spent by now: it cannot be less."""
        if self.end is None:
            return None
        bounds = (self.end.low_picos, self.end.middle_picos, self.end.high_picos)
        low, middle, high = (max(each, spent) for each in bounds)
        return msgspec.structs.replace(
            self.end, low_picos=low, middle_picos=middle, high_picos=high
        )


class Viewed(msgspec.Struct, frozen=True):
    """A budget in its window: so much is spent by now."""

    budget: Budget
    span: Window
    spent: int  # counter units


def past(viewed: Viewed, rows: Iterable[Spent], zone: ZoneInfo, at_us: int) -> Past:
    """Of what the budget counts. An hour belongs to the day in which it begins; the first day is
    that on which something was spent.
    """
    budget = viewed.budget
    today = _date(at_us, zone)
    hours: dict[int, int] = {}
    for one in rows:
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
    end = None
    if budget.period in _FORESEEN:
        # The first of January of the year 1 was a Monday.
        left = days_left(viewed.span, zone, at_us)
        end = forecast(days, (first - 1) % 7, left, viewed.spent)
    return Past(hours_of_week(recent, today - first), end)


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
