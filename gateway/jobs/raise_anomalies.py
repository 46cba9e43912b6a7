"""Compares what teams and keys spend with their own past, and tells of who is unlike himself.

A tenant is looked at once an hour, the tenants one after another over the hour. Of a path only the
nearest is told: a team not, where it is because of one of its keys.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from statistics import median_low
from typing import Final
from zoneinfo import ZoneInfo

from billing.anomalies import LEARNT_DAYS, QUIET_US, Anomaly, anomaly
from billing.money import format_counter, parse_counter
from billing.periods import window
from gateway import clock, ids
from gateway.jobs.audience import Audience, audience
from gateway.jobs.deps import JobDeps
from gateway.jobs.spending_words import of_anomaly
from gateway.stores.sql import alerts, spending
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.records import TakenError
from gateway.stores.sql.rows import Tenant
from gateway.stores.sql.spending import SpentDay

EVERY_S: Final = 60.0

_MINUTE_US: Final = 60_000_000
_LEAST: Final = "1"  # of the currency: less is nobody's worry
_LEAST_PERCENT: Final = 1  # of what the tenant usually spends in a day
_LOG: Final = logging.getLogger(__name__)

Scope = tuple[str, str]  # kind and id


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """At the tenants whose turn it is."""
    await asyncio.to_thread(look, deps, clock.now_us(), stopping.is_set)


def look(deps: JobDeps, now_us: int, stopped: Callable[[], bool] = lambda: False) -> None:
    """At the tenants whose turn it is at `now_us`, one after another until `stopped`."""
    with reading(deps.engine) as connection:
        everybody = audience(connection)
    for tenant in everybody.tenants.values():
        turn = (now_us // _MINUTE_US + sum(tenant.id.encode())) // 60
        if stopped():
            return
        if deps.compared.get(tenant.id) != turn:
            _look_at(deps, everybody, tenant, now_us)
            deps.compared[tenant.id] = turn


def _look_at(deps: JobDeps, everybody: Audience, tenant: Tenant, now_us: int) -> None:
    with reading(deps.engine) as connection:
        rows = spending.daily(connection, tenant.id, now_us, LEARNT_DAYS + 1)
        told = alerts.of_no_budget(connection, tenant.id, now_us - QUIET_US)
    known = {each.scope_id: each.amount for each in told if each.rule == "anomaly"}
    for (kind, scope_id), found in _nearest(_unlike(rows, tenant), everybody).items():
        before = known.get(scope_id)
        if before is None or found.amount >= 2 * parse_counter(before, tenant.currency):
            _tell(deps, everybody, tenant, (kind, scope_id), found, now_us)


def _unlike(rows: Iterable[SpentDay], tenant: Tenant) -> dict[Scope, Anomaly]:
    series: dict[Scope, list[int]] = {}
    whole = [0] * (LEARNT_DAYS + 1)
    for row in rows:
        at = LEARNT_DAYS - row.age
        whole[at] += row.counter_nanos
        for scope in _scopes(row):
            series.setdefault(scope, [0] * (LEARNT_DAYS + 1))[at] += row.counter_nanos
    usual = median_low([day for day in whole[:-1] if day] or [0])
    least = max(parse_counter(_LEAST, tenant.currency), usual * _LEAST_PERCENT // 100)
    compared = {scope: anomaly(days, least) for scope, days in series.items() if days[-1] >= least}
    return {scope: found for scope, found in compared.items() if found is not None}


def _scopes(row: SpentDay) -> Sequence[Scope]:
    return [("key", row.key_id), *(("team", each) for each in row.team_path.split("/"))]


def _nearest(found: Mapping[Scope, Anomaly], everybody: Audience) -> dict[Scope, Anomaly]:
    """Without teams above another that was found. What is gone from the tree stands alone."""
    above = {
        each for _, scope_id in found for each in everybody.paths.get(scope_id, (scope_id,))[1:]
    }
    return {scope: each for scope, each in sorted(found.items()) if scope[1] not in above}


def _tell(
    deps: JobDeps,
    everybody: Audience,
    tenant: Tenant,
    scope: Scope,
    found: Anomaly,
    now_us: int,
) -> None:
    (kind, scope_id), currency = scope, tenant.currency
    label = everybody.label(kind, scope_id)
    said = of_anomaly(found, kind, scope_id, label, currency, now_us)
    alert = alerts.Alert(
        id=ids.new("alert"),
        tenant_id=tenant.id,
        scope_kind=kind,
        scope_id=scope_id,
        budget_id="",
        window_id=window("day", ZoneInfo(tenant.timezone), now_us).id,
        rule="anomaly",
        mark=scope_id,
        cap="0",
        amount=format_counter(found.amount, currency),
        expected=format_counter(found.expected, currency),
        currency=currency,
        message=said.message,
        remedy=said.remedy,
        link=said.link,
        fired_at_us=now_us,
    )
    channels = everybody.of(scope_id, "anomaly", found.amount, currency)
    with suppress(TakenError), transaction(deps.engine) as connection:
        alerts.fire(connection, alert, channels)
        _LOG.warning("alert %s: %s", alert.id, alert.message)
