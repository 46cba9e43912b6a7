"""What the month will have cost, by anything that usage groups by, and how sure that is."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.forecast import INTERVAL_PERCENT, MOST_DAYS, Forecast, days_left, forecast
from billing.money import format_minor, format_picos, minor_picos, round_half_up
from billing.periods import Window, window
from billing.rollups import BUCKET_US
from gateway import clock
from gateway.admin import fields, usage
from gateway.admin.operation import Answer, Call, Filter, Operation
from gateway.admin.problems import ProblemError, invalid
from gateway.admin.reports import Item, ReportView, names_of_all, report_answer
from gateway.admin.roles import Right
from gateway.admin.tables import CSV
from gateway.stores.sql import tenants, usage_reports
from gateway.stores.sql.usage_reports import TIMES, Group, Question, TooManyGroupsError

FORECAST: Final = (
    "period", "actual", "low", "forecast", "high", "interval_percent", "history_days", "currency",
)  # fmt: skip
MOST_FORECASTS: Final = 500  # each of them is some milliseconds of work

_DAY_US: Final = 86_400_000_000
_BACK_US: Final = (MOST_DAYS + 2) * _DAY_US  # whole days of whatever zone, and the month so far
_UTC: Final = ZoneInfo("UTC")


class ForecastQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`at`: an instant whose month is asked for, by what was known then; now by default."""

    group_by: Annotated[str, Meta(max_length=512, description="as of `/usage`, without times")] = ""
    at: fields.Instant | None = None
    tenant_id: Filter | None = None
    team_id: Filter | None = None
    key_id: Filter | None = None
    model: Filter | None = None


async def _forecasts(call: Call) -> Answer:
    query: ForecastQuery = call.query
    at_us = _at(query)
    # Rollups answer where no bucket is cut. Nothing is admitted in the future.
    end_us = at_us + -at_us % BUCKET_US if query.at is None else at_us - at_us % BUCKET_US
    group_by = _dimensions(query.group_by)
    question = Question(
        start_us=max(0, end_us - _BACK_US),
        end_us=end_us,
        group_by=("tenant", *group_by, "day"),
        filters=usage.filters_of(query),
        within=await usage.within(call),
    )
    try:
        groups = await asyncio.to_thread(usage_reports.report, call.deps.engine, question)
    except TooManyGroupsError as fault:
        raise ProblemError(422, "too_many_groups", str(fault)) from None
    series = _series(groups)
    if len(series) > MOST_FORECASTS:
        said = f"more than {MOST_FORECASTS} forecasts; ask for fewer dimensions, or one tenant"
        raise ProblemError(422, "too_many_groups", said)
    zones, names = await call.read(_known)
    items = await asyncio.to_thread(lambda: tuple(_items(series, group_by, zones, names, at_us)))
    return report_answer(call, Window("", at_us, at_us), ("tenant", *group_by, *FORECAST), items)


def operations() -> list[Operation]:
    return [
        Operation(
            "GET", "/reports/forecast", "reports", "Foresee what the month will have cost",
            _forecasts, right=Right.USAGE_READ, query=ForecastQuery, answers=ReportView,
            media_types=("application/json", CSV), refusals=(422,),
            description="Of each tenant's own month, by anything that `/usage` groups by. `low` to "
            f"`high` holds it with {INTERVAL_PERCENT} %, where `interval_percent` says so; with "
            "less than seven days of spending nothing is claimed, and they are what the quietest "
            "and the busiest day so far would come to. Intervals of parts do not add up to that "
            "of the whole. `actual` is what was charged so far, before minimums and commitments.",
        )
    ]  # fmt: skip


_Key = tuple[tuple[str, ...], str]  # the tenant and what it is grouped by; the currency


def _series(groups: Sequence[Group]) -> dict[_Key, dict[int, int]]:
    """What was charged by day, as the ordinal of its date; without what was never charged."""
    found: dict[_Key, dict[int, int]] = {}
    for each in groups:
        *by, day = each.by
        if each.charge_picos:
            days = found.setdefault((tuple(by), each.currency), {})
            days[date.fromisoformat(day).toordinal()] = each.charge_picos
    return found


def _items(
    series: Mapping[_Key, Mapping[int, int]],
    group_by: Sequence[str],
    zones: Mapping[str, ZoneInfo],
    names: Mapping[str, str],
    at_us: int,
) -> Iterator[Item]:
    for (by, currency), days in series.items():
        zone = zones.get(by[0], _UTC)
        span = window("month", zone, at_us)
        period = span.id.removeprefix("m")
        spent = _since(days, date.fromisoformat(f"{period}-01").toordinal())
        today = _today(zone, at_us)
        yield {
            **{
                name: names.get(value, value)
                for name, value in zip(("tenant", *group_by), by, strict=True)
            },
            "period": period,
            "actual": format_picos(spent),
            **_told(_foreseen(days, today, span, zone, at_us, spent), spent, currency),
            "currency": currency,
        }


def _foreseen(
    days: Mapping[int, int], today: int, span: Window, zone: ZoneInfo, at_us: int, spent: int
) -> Forecast | None:
    """From the first day on which something was spent."""
    first = max(min((day for day in days if day < today), default=today), today - MOST_DAYS)
    past = [days.get(day, 0) for day in range(first, today)]
    weekday = date.fromordinal(first).weekday()
    return forecast(past, weekday, days_left(span, zone, at_us), spent)


def _told(found: Forecast | None, spent: int, currency: str) -> Item:
    """In minor units: nobody knows the rest. Never below what is spent, which is told to the pico.
    Null before there is a whole day to go by.
    """
    if found is None:
        return dict.fromkeys(("low", "forecast", "high", "interval_percent")) | {"history_days": 0}

    def shown(picos: int) -> str:
        nearest = round_half_up(picos, currency)
        return format_minor(nearest + (minor_picos(nearest, currency) < spent), currency)

    return {
        "low": shown(found.low_picos),
        "forecast": shown(found.middle_picos),
        "high": shown(found.high_picos),
        "interval_percent": INTERVAL_PERCENT if found.claimed else None,
        "history_days": found.days,
    }


def _at(query: ForecastQuery) -> int:
    now_us = clock.now_us()
    if query.at is None:
        return now_us
    at_us = fields.instant(query.at, "at")
    if at_us > now_us:
        raise invalid("at", f"{query.at} is yet to come", "leave it out to ask as of now")
    return at_us


def _dimensions(text: str) -> tuple[str, ...]:
    """Those that are asked for besides the tenant."""
    named = usage.dimensions_of(text)
    if set(named) & set(TIMES):
        raise invalid("group_by", "a forecast has no days or hours", "ask /usage for what was")
    return tuple(name for name in named if name != "tenant")


def _known(connection: Connection) -> tuple[dict[str, ZoneInfo], dict[str, str]]:
    everyone = tenants.RECORDS.all(connection)
    return {each.id: ZoneInfo(each.timezone) for each in everyone}, names_of_all(connection)


def _since(days: Mapping[int, int], first: int) -> int:
    return sum(picos for day, picos in days.items() if day >= first)


def _today(zone: ZoneInfo, at_us: int) -> int:
    day = window("day", zone, at_us).id.removeprefix("d")
    return date.fromisoformat(day).toordinal()
