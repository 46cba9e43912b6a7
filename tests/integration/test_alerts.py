"""Budgets are looked at, alerts are told once, and webhooks hear of them signed, again until they
answer.
"""

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from sqlalchemy import Engine, select, update

from billing.meters import Meters
from gateway.backends.webhook import Sender
from gateway.clock import parse_rfc3339
from gateway.jobs.deps import JobDeps
from gateway.jobs.raise_alerts import look
from gateway.jobs.tell_alerts import WAITS_S, Webhooks
from gateway.jobs.tell_alerts import run as tell
from gateway.stores.sql import alerts, budgets, grants, usage
from gateway.stores.sql.alert_tables import alert_deliveries
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.rows import Budget, Grant
from gateway.stores.sql.seal import Sealer
from tests.hooks import Hook
from tests.ledger_events import MICROS_PER_HOUR, NOON_US, a_card, a_ledger, an_event
from tests.running import run

SEALER = Sealer(b"k" * 32)
SECRET = "a-secret-of-the-hook"
BUDGET = Budget(
    id="bud_1",
    tenant_id="tenant_acme",
    scope_kind="team",
    scope_id="team_eu",
    amount="100",
    period="month",
)
DAY_US = 24 * MICROS_PER_HOUR
A_THOUSANDTH = a_card(10**9, 10**9, "thousandth")  # of a dollar a token


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with a_ledger(request.getfixturevalue(f"{request.param}_url")) as engine:
        with transaction(engine) as connection:
            budgets.RECORDS.add(connection, BUDGET)
        yield engine


def deps_of(engine: Engine, webhooks: Webhooks | None = None) -> JobDeps:
    nothing = cast(Any, None)
    return JobDeps(engine, nothing, nothing, Path(), "jobs-1", webhooks=webhooks)


def spend(engine: Engine, dollars: float, at_us: int = NOON_US) -> None:
    """A request of the key below the team."""
    tokens = Meters(input=int(dollars * 1000))
    event = an_event(
        f"req_{at_us}_{tokens.input}",
        admitted_at_us=at_us,
        finished_at_us=at_us,
        usage=tokens,
        reported=tokens,
        counted=tokens,
        charge_card=A_THOUSANDTH,
    )
    assert usage.record(engine, [(event, True)]) == 1


def told(engine: Engine) -> list[alerts.Alert]:
    with reading(engine) as connection:
        return sorted(alerts.RECORDS.all(connection), key=lambda each: each.fired_at_us)


def marks(engine: Engine) -> list[str]:
    return [f"{each.rule} {each.mark}" for each in told(engine) if each.rule == "threshold"]


def test_a_threshold_is_told_once_a_window_and_says_what_to_do(engine: Engine) -> None:
    spend(engine, 49.5, NOON_US - 10 * DAY_US)
    deps = deps_of(engine)
    look(deps, NOON_US)
    assert marks(engine) == []
    spend(engine, 31, NOON_US - 9 * DAY_US)

    look(deps, NOON_US)
    look(deps, NOON_US + 60_000_000)
    look(deps_of(engine), NOON_US + 60_000_000)

    (alert,) = told(engine)
    assert (alert.rule, alert.mark, alert.window_id) == ("threshold", "80", "m2026-11")
    assert alert.message == (
        "80 % of the month budget of team Europe is spent: 80.5 USD of 100 USD"
    )
    assert "POST /admin/v1/budgets/bud_1/grants" in alert.remedy
    assert alert.link.startswith("/admin/v1/usage?from=2026-10-31T23:00:00Z&to=2026-11-21T12:00")
    assert alert.link.endswith("group_by=key,model&team_id=team_eu")


def test_a_raised_cap_or_a_new_window_arms_it_again(engine: Engine) -> None:
    spend(engine, 105, NOON_US - 9 * DAY_US)
    deps = deps_of(engine)
    look(deps, NOON_US)
    assert marks(engine) == ["threshold 100"]
    assert "requests are refused until 2026-11-30T23:00:00Z" in told(engine)[0].remedy

    grant = Grant(
        id="grant_1", tenant_id="tenant_acme", budget_id="bud_1", amount="25",
        until_us=NOON_US + DAY_US, approver="Ada", reason="a launch",
    )  # fmt: skip
    with transaction(engine) as connection:
        grants.RECORDS.add(connection, grant)
    look(deps, NOON_US + 1)
    assert marks(engine) == ["threshold 100", "threshold 80"]

    spend(engine, 60, NOON_US + 11 * DAY_US)
    look(deps, NOON_US + 12 * DAY_US)
    assert marks(engine) == ["threshold 100", "threshold 80", "threshold 50"]


def test_what_goes_too_fast_is_told_once_a_day(engine: Engine) -> None:
    spend(engine, 4, NOON_US - 60_000_000)

    look(deps_of(engine), NOON_US)
    look(deps_of(engine), NOON_US + 60_000_000)
    spend(engine, 4, NOON_US + DAY_US)
    look(deps_of(engine), NOON_US + DAY_US + 60_000_000)

    found = told(engine)
    assert [each.mark for each in found] == ["1h d2026-11-21", "1h d2026-11-22"]
    assert "4 USD in the last hour, planned were 0.13888888" in found[0].message
    assert "/admin/v1/keys/ID/revoke" in found[0].remedy


def test_nothing_goes_too_fast_in_the_first_minutes_of_a_window_or_for_small_money(
    engine: Engine,
) -> None:
    begins_us = parse_rfc3339("2026-10-31T23:00:00Z")
    spend(engine, 4, begins_us + 60_000_000)
    look(deps_of(engine), begins_us + 120_000_000)
    assert told(engine) == []
    spend(engine, 5, begins_us + 58 * 60_000_000)
    look(deps_of(engine), begins_us + 60 * 60_000_000)
    assert [each.mark for each in told(engine)] == ["1h d2026-11-01"]

    small = msgspec.structs.replace(BUDGET, id="bud_2", scope_kind="tenant",
                                    scope_id="tenant_acme", amount="20")  # fmt: skip
    with transaction(engine) as connection:
        budgets.RECORDS.add(connection, small)
    spend(engine, 0.9, NOON_US - 60_000_000)
    look(deps_of(engine), NOON_US)

    assert [each for each in told(engine) if each.rule == "burn_rate"][1:] == []


def test_a_month_that_will_not_last_is_foreseen_after_a_week_and_not_before(
    engine: Engine,
) -> None:
    first = NOON_US - 20 * DAY_US
    for day in range(14):
        spend(engine, 4.5, first + day * DAY_US)
        if day == 5:
            look(deps_of(engine), first + day * DAY_US + 7 * MICROS_PER_HOUR)
    assert [each for each in told(engine) if each.rule == "forecast"] == []

    look(deps_of(engine), first + 13 * DAY_US + 11 * MICROS_PER_HOUR)

    (alert,) = [each for each in told(engine) if each.rule == "forecast"]
    assert alert.mark == "likely"
    assert 120 < float(alert.amount) < 150
    assert "will not last until 2026-11-30T23:00:00Z" in alert.message
    assert "budget.on_exhausted" in alert.remedy


def test_those_who_look_at_the_same_time_tell_it_once(engine: Engine) -> None:
    spend(engine, 90, NOON_US - 9 * DAY_US)
    with transaction(engine) as connection:
        alerts.CHANNELS.add(connection, a_channel("http://127.0.0.1:9/x"))
    start = threading.Barrier(4)

    def together() -> None:
        start.wait()
        look(deps_of(engine), NOON_US)

    lookers = [threading.Thread(target=together) for _ in range(4)]
    for each in lookers:
        each.start()
    for each in lookers:
        each.join()

    assert marks(engine) == ["threshold 80"]
    assert len(deliveries(engine)) == 1


def a_channel(url: str, **changes: Any) -> alerts.Channel:
    fields: dict[str, Any] = {
        "id": "channel_1",
        "tenant_id": "tenant_acme",
        "scope_kind": "tenant",
        "scope_id": "tenant_acme",
        "name": "hook",
        "url": url,
        "secret_sealed": SEALER.seal("channel_1", SECRET),
        "rules": ("threshold",),
        "least_amount": "1",
    }
    return alerts.Channel(**(fields | changes))


def deliveries(engine: Engine) -> list[alerts.Delivery]:
    with reading(engine) as connection:
        return list(alerts.DELIVERIES.all(connection))


def make_due(engine: Engine, **changes: Any) -> None:
    with transaction(engine) as connection:
        connection.execute(update(alert_deliveries).values(next_at_us=1, **changes))


async def telling(engine: Engine, times: int = 1) -> None:
    import asyncio

    sender = Sender()
    try:
        deps = deps_of(engine, Webhooks(sender, SEALER))
        for at in range(times):
            if at:
                await asyncio.to_thread(make_due, engine)
            await tell(deps, asyncio.Event())
    finally:
        await sender.close()


def test_a_channel_hears_signed_of_what_it_asked_for(engine: Engine) -> None:
    async def story() -> None:
        async with Hook() as hook:
            with transaction(engine) as connection:
                alerts.CHANNELS.add(connection, a_channel(hook.url))
                other = {"id": "channel_2", "name": "else", "rules": ("forecast",)}
                alerts.CHANNELS.add(connection, a_channel(hook.url, **other))
                beside = {"id": "channel_3", "scope_kind": "key", "scope_id": "key_bot"}
                alerts.CHANNELS.add(connection, a_channel(hook.url, **beside))
            spend(engine, 90, NOON_US - 9 * DAY_US)
            look(deps_of(engine), NOON_US)
            await telling(engine, times=2)

            (sent,) = hook.sent

        body = json.loads(sent.body)
        assert sent.head.startswith("POST /budget/hook HTTP/1.1")
        assert (body["type"], body["amount"], body["cap"]) == ("budget.threshold", "90", "100")
        assert body["scope"] == {"team": "team_eu"}
        assert sent.header("x-meterhouse-delivery") == body["id"]
        stamp, signed = sent.header("x-meterhouse-signature").split(",")
        content = stamp.removeprefix("t=").encode() + b"." + sent.body
        expected = hmac.new(SECRET.encode(), content, hashlib.sha256).hexdigest()
        assert signed == f"v1={expected}"

    run(story())
    (delivery,) = deliveries(engine)
    assert (delivery.state, delivery.attempts, delivery.fault) == ("delivered", 1, None)


def test_a_webhook_that_fails_is_told_again_the_same_and_given_up_in_the_end(
    engine: Engine,
) -> None:
    async def story() -> None:
        async with Hook(500, 302, 204) as hook:
            with transaction(engine) as connection:
                alerts.CHANNELS.add(connection, a_channel(hook.url))
            spend(engine, 90, NOON_US - 9 * DAY_US)
            look(deps_of(engine), NOON_US)
            await telling(engine)
            (waiting,) = deliveries(engine)
            assert (waiting.state, waiting.fault) == ("waiting", "it answered 500")
            make_due(engine)
            await telling(engine, times=2)

            assert len({sent.body for sent in hook.sent}) == 1
            assert len({sent.header("x-meterhouse-delivery") for sent in hook.sent}) == 1
            assert [each.state for each in deliveries(engine)] == ["delivered"]
            assert [each.attempts for each in deliveries(engine)] == [3]

        make_due(engine, state="waiting", attempts=len(WAITS_S))
        await telling(engine)

    run(story())
    (ended,) = deliveries(engine)
    assert ended.state == "given_up"
    assert "ConnectFailed" in str(ended.fault)


def test_no_webhook_leads_to_a_cloud_s_credentials(engine: Engine) -> None:
    """What a name resolves to is judged when it is connected to, whatever the API let through."""
    with transaction(engine) as connection:
        alerts.CHANNELS.add(connection, a_channel("http://169.254.169.254/latest"))
    spend(engine, 90, NOON_US - 9 * DAY_US)
    look(deps_of(engine), NOON_US)

    run(telling(engine))

    (delivery,) = deliveries(engine)
    assert delivery.state == "waiting"
    assert "ConnectFailed" in str(delivery.fault)


def test_a_channel_that_is_gone_or_sealed_otherwise_ends_in_words(engine: Engine) -> None:
    with transaction(engine) as connection:
        alerts.CHANNELS.add(
            connection,
            a_channel("http://127.0.0.1:9/x", secret_sealed=Sealer(b"o" * 32).seal("x", SECRET)),
        )
    spend(engine, 90, NOON_US - 9 * DAY_US)
    look(deps_of(engine), NOON_US)
    run(telling(engine))
    assert "METERHOUSE_SECRET_KEY" in str(deliveries(engine)[0].fault)

    with transaction(engine) as connection:
        alerts.CHANNELS.remove(connection, id="channel_1")
    make_due(engine)
    run(telling(engine))

    assert [(each.state, each.fault) for each in deliveries(engine)] == [
        ("given_up", "the channel is gone")
    ]
    with reading(engine) as connection:
        assert len(connection.execute(select(alert_deliveries)).all()) == 1


def test_what_was_foreseen_of_a_window_says_nothing_of_the_next(engine: Engine) -> None:
    """The month turns while what was read of the past is still remembered."""
    for day in range(30):
        spend(engine, 1.2, NOON_US - 20 * DAY_US + day * DAY_US)
    spend(engine, 70, NOON_US - 20 * DAY_US)
    deps, turn_us = deps_of(engine), NOON_US + 9 * DAY_US + 11 * MICROS_PER_HOUR
    look(deps, turn_us - MICROS_PER_HOUR)
    foretold = len(told(engine))

    look(deps, turn_us + 60_000_000)

    assert len(told(engine)) == foretold
