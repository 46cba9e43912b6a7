"""Looks for keys that call in a loop, tells of them, and blocks them where a breaker says so.

Off the way of requests: what is seen is in the ledger, a second or two after it was answered. A
block is configuration, in force at every worker within a second of its being written.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Connection, Engine

from billing.loops import MINUTE_US, Call, Loop, loops, shape_of
from billing.money import format_counter, parse_counter
from billing.periods import window
from gateway import clock, ids
from gateway.jobs.audience import Audience, audience
from gateway.jobs.deps import JobDeps
from gateway.jobs.spending_words import of_loop, to_the_caller
from gateway.stores.sql import alerts, audit, breakers, spending
from gateway.stores.sql.configuration import changing
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.records import TakenError
from gateway.stores.sql.rows import KeyBlock, LoopBreaker, Tenant

EVERY_S: Final = 5.0

_LATE_US: Final = 30_000_000  # so long the ledger may take to have what was answered
_BACK_US: Final = 10 * MINUTE_US  # no further, however long nobody looked
_DAY_US: Final = 1_440 * MINUTE_US
_LOG: Final = logging.getLogger(__name__)


class _Seen(msgspec.Struct, frozen=True):
    """A tenant's breakers, and what its suspicious keys did."""

    tenant: Tenant
    breakers: Sequence[LoopBreaker]
    answered: Sequence[spending.Answered]
    told: frozenset[tuple[str, str]]  # windows and marks


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """One look, now."""
    await asyncio.to_thread(look, deps, clock.now_us(), stopping.is_set)


def look(deps: JobDeps, now_us: int, stopped: Callable[[], bool] = lambda: False) -> None:
    """For loops as of `now_us`, tenant by tenant until `stopped`."""
    with reading(deps.engine) as connection:
        found = breakers.RECORDS.all(connection)
        if not found:
            return
        everybody = audience(connection)
    for tenant_id, mine in _by_tenant(found).items():
        if stopped():
            return
        tenant = everybody.tenants[tenant_id]
        last_us = deps.seen_us.get(tenant_id, now_us - _BACK_US)
        from_us = max(now_us - _BACK_US, last_us - MINUTE_US - _LATE_US)
        with reading(deps.engine) as connection:
            seen = _seen(connection, tenant, mine, from_us, now_us)
        for breaker in mine:
            for loop in _loops(seen, breaker, everybody):
                _trip(deps.engine, everybody, seen, breaker, loop, now_us)
        deps.seen_us[tenant_id] = now_us


def _seen(
    connection: Connection, tenant: Tenant, mine: Sequence[LoopBreaker], from_us: int, now_us: int
) -> _Seen:
    """Without what was dealt with already: what a block was for is no reason for the next."""
    least = min(parse_counter(each.amount_per_minute, tenant.currency) for each in mine)
    requests = min(each.least_requests for each in mine)
    to_us = now_us + 1
    keys = spending.busy_keys(connection, tenant.id, from_us, to_us, requests, least)
    if not keys:
        return _Seen(tenant, mine, (), frozenset())
    forgiven = breakers.forgiven(connection, tenant.id)
    rows = spending.answered(connection, tenant.id, keys, from_us, to_us)
    told = alerts.of_no_budget(connection, tenant.id, now_us - 2 * _DAY_US)
    return _Seen(
        tenant,
        mine,
        [each for each in rows if each.finished_at_us > forgiven.get(each.key_id, 0)],
        frozenset((each.window_id, each.mark) for each in told),
    )


def _loops(seen: _Seen, breaker: LoopBreaker, everybody: Audience) -> tuple[Loop, ...]:
    """What the breaker finds in what came since it was made."""
    calls = [
        Call(
            each.key_id,
            shape_of(each.model, each.operation, each.stream, each.input_tokens),
            each.finished_at_us,
            each.counter_nanos,
        )
        for each in seen.answered
        if each.key_id in everybody.keys
        and breaker.scope_id in everybody.paths[each.key_id]
        and each.finished_at_us >= breaker.created_at_us
    ]
    least = parse_counter(breaker.amount_per_minute, seen.tenant.currency)
    return loops(calls, breaker.least_requests, least)


def _trip(
    engine: Engine,
    everybody: Audience,
    seen: _Seen,
    breaker: LoopBreaker,
    loop: Loop,
    now_us: int,
) -> None:
    """Told once a day; blocked as often as it loops."""
    day = window("day", ZoneInfo(seen.tenant.timezone), now_us).id
    if breaker.action == "block":
        _block(engine, everybody, seen.tenant, breaker, loop, day, now_us)
    elif (day, f"{loop.key_id} {loop.shape}") not in seen.told:
        alert = _alert(everybody, seen.tenant, breaker, loop, day, now_us)
        with suppress(TakenError), transaction(engine) as connection:
            _fire(connection, everybody, alert, loop)


def _block(
    engine: Engine,
    everybody: Audience,
    tenant: Tenant,
    breaker: LoopBreaker,
    loop: Loop,
    day: str,
    now_us: int,
) -> None:
    key, currency = everybody.keys[loop.key_id], tenant.currency
    block_id = ids.new("block")
    block = KeyBlock(
        id=block_id,
        tenant_id=tenant.id,
        team_id=key.team_id,
        key_id=key.id,
        breaker_id=breaker.id,
        alert_id=ids.new("alert"),
        shape=loop.shape,
        reason=to_the_caller(loop, breaker, block_id, currency),
        from_us=now_us,
        until_us=now_us + breaker.block_minutes * MINUTE_US,
    )
    alert = _alert(everybody, tenant, breaker, loop, day, now_us, block)
    # One after another: who comes second finds the block of the first.
    with changing(engine) as (connection, _):
        if breakers.forgiven(connection, tenant.id).get(key.id, 0) >= loop.end_us:
            return
        breakers.BLOCKS.add(connection, block)
        _fire(connection, everybody, alert, loop)
        audit.append(connection, [_told(block, now_us)])


def _alert(
    everybody: Audience,
    tenant: Tenant,
    breaker: LoopBreaker,
    loop: Loop,
    day: str,
    now_us: int,
    block: KeyBlock | None = None,
) -> alerts.Alert:
    said = of_loop(loop, breaker, everybody.label("key", loop.key_id), tenant.currency, block)
    mark = f"{loop.key_id} {loop.shape}"
    return alerts.Alert(
        id=ids.new("alert") if block is None else block.alert_id,
        tenant_id=tenant.id,
        scope_kind="key",
        scope_id=loop.key_id,
        budget_id="",
        window_id=day,
        rule="loop",
        mark=mark if block is None else f"{mark} {block.id}",
        cap=breaker.amount_per_minute,
        amount=format_counter(loop.amount, tenant.currency),
        expected=breaker.amount_per_minute,
        currency=tenant.currency,
        message=said.message,
        remedy=said.remedy,
        link=said.link,
        fired_at_us=now_us,
    )


def _fire(connection: Connection, everybody: Audience, alert: alerts.Alert, loop: Loop) -> None:
    channels = everybody.of(loop.key_id, "loop", loop.amount, alert.currency)
    alerts.fire(connection, alert, channels)
    _LOG.warning("alert %s: %s", alert.id, alert.message)


def _told(block: KeyBlock, now_us: int) -> audit.Entry:
    """The audit chain knows who blocked the key: nobody, a breaker."""
    facts = {name: getattr(block, name) for name in ("key_id", "breaker_id", "until_us", "shape")}
    return audit.Entry(
        at_us=now_us,
        actor_id=block.breaker_id,
        actor_name="loop breaker",
        role="system",
        operation="break_loops",
        noun="key-blocks",
        object_id=block.id,
        tenant_id=block.tenant_id,
        team_id=block.team_id,
        after=msgspec.json.encode(facts).decode(),
        address="",
        request_id="",
    )


def _by_tenant(found: Iterable[LoopBreaker]) -> dict[str, list[LoopBreaker]]:
    grouped: dict[str, list[LoopBreaker]] = {}
    for breaker in found:
        grouped.setdefault(breaker.tenant_id, []).append(breaker)
    return grouped
