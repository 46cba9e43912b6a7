"""Alerts go by METERHOUSE_ALERT_DAYS, unless they are needed; the audit chain tells of it."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, func, select

from billing.periods import window
from gateway import clock
from gateway.jobs import retire_alerts
from gateway.jobs.deps import JobDeps
from gateway.stores.sql import alerts, audit, breakers, budgets, retention
from gateway.stores.sql.alert_tables import alert_deliveries
from gateway.stores.sql.breaker_tables import key_blocks
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.retention import AT_ONCE
from gateway.stores.sql.rows import Budget, KeyBlock
from tests.ledger_events import a_ledger
from tests.running import run

DAY_US = 86_400_000_000


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def let_go(engine: Engine, days: int) -> None:
    nothing = cast(Any, None)
    deps = JobDeps(engine, nothing, nothing, Path(), "jobs-1", alert_days=days)
    run(retire_alerts.run(deps, asyncio.Event()))


def warned(engine: Engine, name: str, age_days: int, **told: str) -> None:
    at_us = clock.now_us() - age_days * DAY_US
    texts = ("budget_id", "window_id", "rule", "mark", "cap", "amount", "expected", "currency")
    alert = alerts.Alert(
        id=name, tenant_id="tenant_acme", scope_kind="key", scope_id="key_bot", message="m",
        remedy="r", link="/", fired_at_us=at_us, **dict.fromkeys(texts, name) | told,
    )  # fmt: skip
    block = KeyBlock(
        id=f"block_{name}", tenant_id="tenant_acme", team_id="team_eu", key_id="key_bot",
        breaker_id="b", alert_id=name, shape="s", reason="r", from_us=at_us - 1, until_us=at_us,
    )  # fmt: skip
    with transaction(engine) as connection:
        alerts.fire(connection, alert, ["channel_1"])
        breakers.BLOCKS.add(connection, block)


def test_old_alerts_go_with_their_deliveries_and_blocks(engine: Engine) -> None:
    warned(engine, "old", 31)
    warned(engine, "new", 29)

    let_go(engine, 30)
    let_go(engine, 30)

    with reading(engine) as connection:
        (row,) = audit.RECORDS.all(connection, actor_id="jobs")
        assert [each.id for each in alerts.RECORDS.all(connection)] == ["new"]
        assert [each.id for each in breakers.BLOCKS.all(connection)] == ["block_new"]
        count = select(func.count()).select_from(alert_deliveries)
        assert connection.execute(count).scalar_one() == 1
    assert (row.operation, row.role) == ("retire_alerts 30 days", "system")
    told = json.loads(row.after or "")
    assert (told["alerts"], told["blocks"]) == (1, 1)
    assert audit.verify(engine).broken_at is None


def test_an_alert_stays_while_it_keeps_the_same_one_from_being_told_again(engine: Engine) -> None:
    """Of a budget whose window lasts (`total` has no end), and of spending told within a week."""
    month = window("month", ZoneInfo("Europe/Berlin"), clock.now_us()).id
    with transaction(engine) as connection:
        for name, period in (("whole", "total"), ("monthly", "month")):
            budgets.RECORDS.add(
                connection,
                Budget(
                    id=name, tenant_id="tenant_acme", scope_kind="team", scope_id="team_eu",
                    amount="100", period=period,
                ),
            )  # fmt: skip
    warned(engine, "total", 31, budget_id="whole", window_id="total")
    warned(engine, "this month", 31, budget_id="monthly", window_id=month)
    warned(engine, "another month", 31, budget_id="monthly", window_id="m2020-01")
    warned(engine, "of no budget any more", 31, budget_id="gone", window_id="total")
    warned(engine, "unlike himself", 6, budget_id="")
    warned(engine, "unlike himself before", 8, budget_id="")

    let_go(engine, 5)

    with reading(engine) as connection:
        kept = {each.id for each in alerts.RECORDS.all(connection)}
    assert kept == {"total", "this month", "unlike himself"}


def test_very_many_go_some_at_a_time_so_that_nobody_waits_for_long(engine: Engine) -> None:
    now_us = clock.now_us()
    texts = ("tenant_id", "team_id", "key_id", "breaker_id", "alert_id", "shape", "reason")
    of = dict.fromkeys(texts, "x") | {"from_us": 0, "version": 1}
    with transaction(engine) as connection:
        rows = [of | {"id": f"block_{n}", "until_us": n} for n in range(2 * AT_ONCE + 1)]
        connection.execute(key_blocks.insert(), rows)

    steps = [retention.forget_alerts(engine, 2 * AT_ONCE, now_us, "retire_alerts") for _ in "123"]

    assert [each.blocks for each in steps if each is not None] == [AT_ONCE, AT_ONCE]
    with reading(engine) as connection:
        assert [each.id for each in breakers.BLOCKS.all(connection)] == [f"block_{2 * AT_ONCE}"]


def test_with_zero_days_nothing_ever_goes(engine: Engine) -> None:
    warned(engine, "old", 5_000)

    let_go(engine, 0)

    with reading(engine) as connection:
        assert len(alerts.RECORDS.all(connection)) == 1
