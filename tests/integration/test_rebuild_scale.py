"""How long it takes until ten thousand budgets are whole again after the store lost them."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, insert

from gateway import clock
from gateway.jobs import rebuild_counters
from gateway.settings import Settings
from gateway.stores.sql import rows, tables, teams, tenants
from gateway.stores.sql.engine import migrate, open_engine, transaction
from gateway.wiring.jobs import open_jobs
from tests.holding import TAG
from tests.running import run

NODES = 10_000
ROWS = 200_000
WITHIN_S = 5.0
PERIODS = ("day", "week", "month", "quarter", "total")
AT_ONCE = 20_000
MONTH_S = 2_592_000


@pytest.mark.long
def test_ten_thousand_nodes_are_whole_again_within_five_seconds(
    tmp_path: Path, store_url: str, database_url: str, figure: Callable[[str], None]
) -> None:
    environ = {"METERHOUSE_HOME": str(tmp_path), "METERHOUSE_REDIS_URL": store_url}
    if database_url:
        environ["METERHOUSE_DATABASE_URL"] = database_url
    settings = Settings.from_env(environ)
    engine = open_engine(settings.database_url)
    migrate(engine)
    _seed(engine)

    took_s = run(_rebuilt(settings, store_url))

    with redis.Redis.from_url(store_url) as client:
        accounts = list(client.scan_iter(f"mh:{{{TAG}}}:acct:*:total", count=5_000))
        shown = sum(int(client.hget(account, "posted") or 0) for account in accounts)
        all_of_them = sum(1 for _ in client.scan_iter(f"mh:{{{TAG}}}:acct:*", count=5_000))
    engine.dispose()
    figure(
        f"{NODES} budgets of {len(PERIODS)} periods over {ROWS} rows ({engine.dialect.name}): "
        f"{all_of_them} accounts whole after {took_s:.1f} s"
    )
    assert all_of_them >= NODES
    assert (len(accounts), shown) == (NODES // 5, ROWS // 5)  # a total has all of its key's rows
    assert took_s <= WITHIN_S


async def _rebuilt(settings: Settings, store_url: str) -> float:
    async with open_jobs(settings, "jobs-1") as deps:
        with redis.Redis.from_url(store_url) as client:
            client.flushall()
        began = time.monotonic()
        await rebuild_counters.run(deps, asyncio.Event())
        return time.monotonic() - began


def _seed(engine: Engine) -> None:
    """A key for each budget; every key has as many rows, one nano each."""
    now_us = clock.now_us()
    with transaction(engine) as connection:
        tenants.RECORDS.add(
            connection, rows.Tenant(id="t1", name="a", currency="USD", timezone="Europe/Berlin")
        )
        for n in range(100):
            teams.RECORDS.add(connection, rows.Team(id=f"team{n}", tenant_id="t1", name=f"n{n}"))
        connection.execute(insert(tables.keys), [_key(n) for n in range(NODES)])
        connection.execute(insert(tables.budgets), [_budget(n) for n in range(NODES)])
        connection.execute(
            insert(tables.rate_cards), [{"id": "rc", "currency": "USD", "rates": b""}]
        )
        for start in range(0, ROWS, AT_ONCE):
            part = [_row(n, now_us) for n in range(start, start + AT_ONCE)]
            connection.execute(insert(tables.usage_rows), part)


def _key(n: int) -> dict[str, Any]:
    of = {"tenant_id": "t1", "team_id": f"team{n % 100}", "name": f"k{n}"}
    return of | {"id": f"k{n}", "version": 1, "created_at_us": 0}


def _budget(n: int) -> dict[str, Any]:
    scope = {"tenant_id": "t1", "scope_kind": "key", "scope_id": f"k{n}"}
    terms = {"amount": "100", "mode": "hard", "outage": "strict", "thresholds": "[]"}
    period = PERIODS[n % len(PERIODS)]
    return scope | terms | {"id": f"b{n}", "period": period, "version": 1, "created_at_us": 0}


def _row(n: int, now_us: int) -> dict[str, Any]:
    key = n % NODES
    mine = {
        "event_id": f"e{n}",
        "request_id": f"r{n}",
        "team_id": f"team{key % 100}",
        "team_path": f"team{key % 100}",
        "key_id": f"k{key}",
        "admitted_at_us": now_us - (n * 7919 % MONTH_S) * 1_000_000,
        "finished_at_us": now_us,
        "recorded_at_us": now_us,
    }
    return _ALIKE | mine


_ALIKE: dict[str, Any] = {
    "attempt": 1,
    "winner": True,
    "tenant_id": "t1",
    "model": "m",
    "backend_id": "b",
    "upstream_model": "u",
    "region": "r",
    "operation": "chat",
    "stream": False,
    "ttft_us": 1,
    "duration_us": 1,
    "input_tokens": 10,
    "cache_read_tokens": 0,
    "cache_write_5m_tokens": 0,
    "cache_write_1h_tokens": 0,
    "output_tokens": 5,
    "reasoning_tokens": 0,
    "provenance": "reported",
    "reported": None,
    "counted": None,
    "currency": "USD",
    "charge_card": "rc",
    "cost_card": None,
    "charge_picos": 1000,
    "cost_picos": 0,
    "counter_nanos": 1,
    "status": 200,
    "end_by": "upstream",
    "end_phase": "done",
    "tags": "{}",
    "hold": "settled",
}
