"""Looks at every budget and tells whoever wants to know: spent, too fast, or not enough.

Whoever looks may die or look twice: an alert is one row by budget, window, rule, mark and cap, and
only who writes it has it delivered.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Engine

from billing.alerts import HOUR_US, PACES, Finding, Watched, findings
from billing.money import format_counter, parse_counter
from billing.periods import Window, window
from gateway import clock, ids
from gateway.jobs.alert_words import words
from gateway.jobs.audience import Audience, audience
from gateway.jobs.deps import JobDeps
from gateway.jobs.past import SPAN_US, Past, Viewed, past
from gateway.stores.sql import alerts, budgets, grants, spending, spent
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.records import TakenError
from gateway.stores.sql.rows import Budget, Tenant

EVERY_S: Final = 30.0

_LEAST: Final = "1"  # of the currency: what goes faster than planned below that is nobody's worry
_READ_EVERY_HOURS: Final = 6
_LOG: Final = logging.getLogger(__name__)
_SPANS: Final = tuple(sorted({us for pace in PACES for us in (pace.long_us, pace.short_us)}))


class _Setting(msgspec.Struct, frozen=True):
    """What the configuration says, of one instant."""

    audience: Audience
    budgets: tuple[Budget, ...]
    granted: Mapping[str, int]  # counter units by budget


class Read(msgspec.Struct, frozen=True):
    """The past of a tenant's budgets, as it was read at its turn."""

    turn: int
    budgets: list[tuple[Budget, Window]]
    of: Mapping[str, Past]


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """One look at all budgets, now."""
    await asyncio.to_thread(look, deps, clock.now_us(), stopping.is_set)


def look(deps: JobDeps, now_us: int, stopped: Callable[[], bool] = lambda: False) -> None:
    """At all budgets as of `now_us`, tenant by tenant until `stopped`."""
    setting = _setting(deps.engine, now_us)
    for tenant_id, mine in _by_tenant(setting.budgets).items():
        if stopped():
            return
        _look_at(deps, setting, setting.audience.tenants[tenant_id], mine, now_us)


def _look_at(
    deps: JobDeps, setting: _Setting, tenant: Tenant, mine: list[Budget], now_us: int
) -> None:
    zone = ZoneInfo(tenant.timezone)
    windows = {each.id: window(each.period, zone, now_us) for each in mine}  # type: ignore[arg-type]
    asked = {each.id: _asked(each, windows[each.id], now_us) for each in mine}
    totals = spent.totals(
        deps.engine, {one for each in asked.values() for one in each.values()}, ()
    )
    views = [Viewed(each, windows[each.id], totals[asked[each.id][0]]) for each in mine]
    known = _past(deps, tenant, views, now_us)
    with reading(deps.engine) as connection:
        before = alerts.told(connection, tenant.id, {each.id for each in windows.values()})
    for one in views:
        budget, span = one.budget, one.span
        figures = {us: totals[each] for us, each in asked[budget.id].items() if us}
        watched = Watched(
            cap=parse_counter(budget.amount, tenant.currency) + setting.granted.get(budget.id, 0),
            spent=one.spent,
            start_us=span.start_us,
            end_us=span.end_us,
            at_us=now_us,
            thresholds=budget.thresholds,
            hard=budget.mode == "hard",
        )
        past_of = known[budget.id]
        least = parse_counter(_LEAST, tenant.currency)
        found = findings(watched, figures, past_of.week, past_of.foreseen(one.spent), least)
        for finding in _marked(found, tenant, now_us):
            told = before.get((budget.id, span.id), ())
            if not any(_covers(each, finding, watched.cap, tenant.currency) for each in told):
                _tell(deps.engine, setting, tenant, one, watched, finding)


def _asked(budget: Budget, span: Window, now_us: int) -> dict[int, spent.Asked]:
    """The figures of a budget by their span; 0 is the window's own."""
    since = {us: (now_us - us, now_us + 1) for us in _SPANS} | {0: (span.start_us, span.end_us)}
    return {
        us: spent.Asked(budget.tenant_id, budget.scope_kind, budget.scope_id, each, tokens=False)
        for us, each in since.items()
    }


def _past(deps: JobDeps, tenant: Tenant, views: list[Viewed], now_us: int) -> Mapping[str, Past]:
    """Read again every six hours, tenants one after another, or when the budgets are others: a
    forecast takes milliseconds, and there may be ten thousand budgets.
    """
    hour = now_us // HOUR_US
    turn = (hour + sum(tenant.id.encode())) // _READ_EVERY_HOURS
    now = [(each.budget, each.span) for each in views]
    before = deps.past.get(tenant.id)
    if before is not None and before.turn == turn and before.budgets == now:
        return before.of
    with reading(deps.engine) as connection:
        rows = spending.hourly(connection, tenant.id, now_us - SPAN_US, hour * HOUR_US)
    zone = ZoneInfo(tenant.timezone)
    of = {each.budget.id: past(each, rows, zone, now_us) for each in views}
    deps.past[tenant.id] = Read(turn, now, of)
    return of


def _tell(
    engine: Engine,
    setting: _Setting,
    tenant: Tenant,
    viewed: Viewed,
    watched: Watched,
    finding: Finding,
) -> None:
    alert = _alert(setting, tenant, viewed, watched, finding)
    told = alert.scope_id, alert.rule, finding.amount, tenant.currency
    channels = setting.audience.of(*told)
    with suppress(TakenError), transaction(engine) as connection:
        alerts.fire(connection, alert, channels)
        _LOG.warning("alert %s: %s", alert.id, alert.message)


def _marked(found: Iterable[Finding], tenant: Tenant, at_us: int) -> Iterator[Finding]:
    """Speed is told once a day, everything else once a window."""
    for finding in found:
        if finding.rule == "burn_rate":
            day = window("day", ZoneInfo(tenant.timezone), at_us).id
            yield msgspec.structs.replace(finding, mark=f"{finding.mark} {day}")
        else:
            yield finding


def _covers(told: alerts.Alert, finding: Finding, cap: int, currency: str) -> bool:
    """Whether it was told already: of the same or a higher cap, and of thresholds a higher one."""
    if told.rule != finding.rule or parse_counter(told.cap, currency) < cap:
        return False
    if finding.rule == "threshold":
        return int(told.mark) >= int(finding.mark)
    return told.mark == finding.mark


def _alert(
    setting: _Setting, tenant: Tenant, viewed: Viewed, watched: Watched, finding: Finding
) -> alerts.Alert:
    budget = viewed.budget
    label = setting.audience.label(budget.scope_kind, budget.scope_id)
    said = words(finding, watched, budget, label, tenant.currency)
    return alerts.Alert(
        id=ids.new("alert"),
        tenant_id=tenant.id,
        scope_kind=budget.scope_kind,
        scope_id=budget.scope_id,
        budget_id=budget.id,
        window_id=viewed.span.id,
        rule=finding.rule,
        mark=finding.mark,
        cap=format_counter(watched.cap, tenant.currency),
        amount=format_counter(finding.amount, tenant.currency),
        expected=format_counter(finding.expected, tenant.currency),
        currency=tenant.currency,
        message=said.message,
        remedy=said.remedy,
        link=said.link,
        fired_at_us=watched.at_us,
    )


def _setting(engine: Engine, now_us: int) -> _Setting:
    with reading(engine) as connection:
        everybody = audience(connection)
        found = budgets.RECORDS.all(connection)
        allowed = grants.in_force(connection, now_us)
    granted: dict[str, int] = {}
    for grant in allowed:
        more = parse_counter(grant.amount, everybody.tenants[grant.tenant_id].currency)
        granted[grant.budget_id] = granted.get(grant.budget_id, 0) + more
    return _Setting(everybody, found, granted)


def _by_tenant(found: Iterable[Budget]) -> dict[str, list[Budget]]:
    grouped: dict[str, list[Budget]] = {}
    for budget in found:
        grouped.setdefault(budget.tenant_id, []).append(budget)
    return grouped
