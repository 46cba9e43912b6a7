"""Loops are broken and anomalies told, from what the ledger has; the same on both databases."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine

from billing.meters import Meters
from gateway.jobs import break_loops, raise_anomalies
from gateway.jobs.deps import JobDeps
from gateway.stores.sql import alerts, audit, breakers, configuration, usage
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.rows import LoopBreaker
from tests.ledger_events import MICROS_PER_HOUR, NOON_US, a_card, a_ledger, an_event

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
DAY_US = 24 * MICROS_PER_HOUR
A_THOUSANDTH = a_card(10**9, 10**9, "thousandth")  # of a dollar a token
BREAKER = LoopBreaker(
    id="breaker_1",
    tenant_id="tenant_acme",
    scope_kind="team",
    scope_id="team_eu",
    amount_per_minute="5",
    least_requests=10,
    action="block",
    block_minutes=15,
)


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with a_ledger(request.getfixturevalue(f"{request.param}_url")) as engine:
        yield engine


def deps_of(engine: Engine) -> JobDeps:
    nothing = cast(Any, None)
    return JobDeps(engine, nothing, nothing, Path(), "jobs-1")


def spend(engine: Engine, ends_us: list[int], tokens: int, key: str = "key_bot") -> None:
    """A request of a thousandth a token at each of these ends."""
    used = Meters(input=tokens)
    labs = {"tenant_id": "tenant_bharat", "team_path": ("team_labs",)} if key == "key_lab" else {}
    events = [
        an_event(
            f"req_{key}_{end_us}_{number}",
            key_id=key,
            admitted_at_us=end_us - SECOND_US,
            finished_at_us=end_us,
            usage=used,
            reported=used,
            counted=used,
            charge_card=A_THOUSANDTH,
            **labs,
        )
        for number, end_us in enumerate(ends_us)
    ]
    assert usage.record(engine, [(each, True) for each in events]) == len(events)


def told(engine: Engine) -> list[alerts.Alert]:
    with reading(engine) as connection:
        return sorted(alerts.RECORDS.all(connection), key=lambda each: each.fired_at_us)


def armed(engine: Engine, **changes: Any) -> None:
    with transaction(engine) as connection:
        breakers.RECORDS.add(connection, replace(BREAKER, **changes))


def storm(engine: Engine, before_us: int, count: int = 20, tokens: int = 500) -> None:
    spend(engine, [before_us - each * SECOND_US for each in range(count)], tokens)


def test_a_key_in_a_loop_is_blocked_once_and_everybody_is_told_why(engine: Engine) -> None:
    armed(engine)
    storm(engine, NOON_US)
    before = configuration.revision(engine)

    break_loops.look(deps_of(engine), NOON_US)
    break_loops.look(deps_of(engine), NOON_US + 5 * SECOND_US)

    config = configuration.load(engine)
    with reading(engine) as connection:
        (block,) = breakers.in_force(connection, NOON_US)
        assert breakers.in_force(connection, block.until_us) == ()
        (row,) = audit.RECORDS.all(connection, noun="key-blocks")
    (alert,) = told(engine)
    assert (block.key_id, block.until_us) == ("key_bot", NOON_US + 15 * MINUTE_US)
    assert config.revision == before + 1
    assert "20 alike requests cost 10 USD within a minute, and 5 USD are allowed" in block.reason
    assert alert.rule == "loop"
    assert alert.message.startswith("key bot is in a loop: 20 requests of one shape")
    assert f"POST /admin/v1/key-blocks/{block.id}/lift" in alert.remedy
    assert "key_id=key_bot" in alert.link
    assert (row.actor_name, row.object_id) == ("loop breaker", block.id)
    assert audit.verify(engine).broken_at is None


def test_what_a_block_was_for_is_forgotten_and_a_new_loop_is_blocked_again(engine: Engine) -> None:
    armed(engine)
    storm(engine, NOON_US)
    deps = deps_of(engine)
    break_loops.look(deps, NOON_US)
    with transaction(engine) as connection:
        (block,) = breakers.in_force(connection, NOON_US)
        breakers.BLOCKS.replace(connection, breakers.lifted(block, NOON_US + 10 * SECOND_US))

    break_loops.look(deps, NOON_US + 15 * SECOND_US)
    assert len(told(engine)) == 1

    storm(engine, NOON_US + 60 * SECOND_US)
    break_loops.look(deps, NOON_US + 61 * SECOND_US)

    with reading(engine) as connection:
        (again,) = breakers.in_force(connection, NOON_US + 61 * SECOND_US)
    assert again.id != block.id
    assert len(told(engine)) == 2


def test_a_breaker_that_only_tells_tells_once_a_day(engine: Engine) -> None:
    armed(engine, action="alert", scope_kind="key", scope_id="key_bot")
    storm(engine, NOON_US)

    break_loops.look(deps_of(engine), NOON_US)
    break_loops.look(deps_of(engine), NOON_US + 5 * SECOND_US)

    (alert,) = told(engine)
    assert "it goes on" in alert.remedy
    with reading(engine) as connection:
        assert breakers.in_force(connection, NOON_US) == ()


@pytest.mark.parametrize(
    ("count", "tokens", "scope"),
    [(9, 5_000, "team_eu"), (20, 200, "team_eu"), (20, 500, "team_labs")],
    ids=["too few", "too cheap", "elsewhere"],
)
def test_what_is_no_loop_is_left_alone(engine: Engine, count: int, tokens: int, scope: str) -> None:
    armed(engine, scope_id=scope)
    storm(engine, NOON_US, count, tokens)

    break_loops.look(deps_of(engine), NOON_US)

    assert told(engine) == []


def test_what_was_before_the_breaker_is_no_matter_of_it(engine: Engine) -> None:
    armed(engine, created_at_us=NOON_US - 5 * SECOND_US)
    storm(engine, NOON_US)

    break_loops.look(deps_of(engine), NOON_US)

    assert told(engine) == []


def test_a_channel_hears_of_what_is_worth_its_least_amount(engine: Engine) -> None:
    armed(engine)
    storm(engine, NOON_US)  # ten dollars
    with transaction(engine) as connection:
        for name, least in (("near", "10"), ("far", "10.000001")):
            channel = alerts.Channel(
                id=name, tenant_id="tenant_acme", scope_kind="tenant", scope_id="tenant_acme",
                name=name, url="https://hooks.example.com", secret_sealed=b"", rules=("loop",),
                least_amount=least,
            )  # fmt: skip
            alerts.CHANNELS.add(connection, channel)

    break_loops.look(deps_of(engine), NOON_US)

    (alert,) = told(engine)
    with reading(engine) as connection:
        sent = alerts.DELIVERIES.all(connection, alert_id=alert.id)
    assert [each.channel_id for each in sent] == ["near"]


def test_a_key_unlike_its_own_past_is_told_and_not_its_teams_because_of_it(
    engine: Engine,
) -> None:
    usual = [NOON_US - 3 * MICROS_PER_HOUR - day * DAY_US for day in range(1, 21)]
    spend(engine, usual, 20_000)
    spend(engine, usual, 30_000, key="key_lab")
    spend(engine, [NOON_US - 4 * MICROS_PER_HOUR], 200_000)
    spend(engine, [NOON_US - 4 * MICROS_PER_HOUR], 30_000, key="key_lab")
    deps = deps_of(engine)

    raise_anomalies.look(deps, NOON_US)
    raise_anomalies.look(deps, NOON_US + MICROS_PER_HOUR)
    raise_anomalies.look(deps_of(engine), NOON_US)

    (alert,) = told(engine)
    assert (alert.rule, alert.scope_kind, alert.scope_id) == ("anomaly", "key", "key_bot")
    assert alert.budget_id == ""
    assert alert.message.startswith("key bot has spent 200 USD in 24 hours; 1")
    assert "20 days of its own" in alert.message
    assert "/admin/v1/keys/key_bot/revoke" in alert.remedy

    spend(engine, [NOON_US + MICROS_PER_HOUR], 300_000)
    raise_anomalies.look(deps, NOON_US + 2 * MICROS_PER_HOUR)
    assert [each.amount for each in told(engine)] == ["200"], "one alert a scope and day"
