"""What a killed worker left in its spool is charged once or released; never forgotten."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from billing.meters import Meters, Provenance
from billing.money import counter_units
from billing.usage import ENCODER, UsageEvent
from gateway.jobs import prune, replay_spool
from gateway.jobs.deps import JobDeps
from gateway.jobs.drain_journal import drain
from gateway.stores import spooled
from gateway.stores.redis import keys, records
from gateway.stores.redis.holds import Account, Admission, Granted
from gateway.stores.redis.journal import Journal
from gateway.stores.spool import LOCK_NAME, Dispatch, Intent, Outcome, Record, Spool
from gateway.stores.sql import usage
from gateway.stores.sql.engine import reading
from gateway.stores.sql.tables import usage_rows
from tests.integration.test_jobs_drain import TAG, at_once, some_jobs
from tests.ledger_events import NOON_US, a_ledger, an_event
from tests.running import run
from tests.spooling import living_spool

ACCOUNT = keys.account(TAG, "budget_1", "total")
BUDGET = Account(ACCOUNT, 10**12, 0, 2**53 - 1, 0, "budget_1")
WORST = Meters(input=1_000, output=500)


@pytest.fixture
def played(sqlite_url: str, store_url: str, tmp_path: Path) -> Callable[[Any], None]:
    """Plays a story over a ledger, a store and an empty spool directory."""

    def play(story: Any) -> None:
        async def whole(engine: Engine) -> None:
            async with some_jobs(engine, store_url, tmp_path / "spool") as deps:
                await story(deps)

        with a_ledger(sqlite_url) as engine:
            run(whole(engine))

    return play


def test_an_outcome_that_was_never_settled_is_settled_and_booked(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        event = an_event("req_1")
        await _hold(deps, "req_1")
        spool = Spool.open(deps.spool_dir, "data-0")
        spool.intent("req_1", TAG, NOON_US, _template("req_1"))
        spool.dispatch("req_1", 1, event.backend_id, NOON_US)
        spool.outcome("req_1", ENCODER.encode(event))
        await spool.close()

        await _replay_until_gone(deps)

        (row,) = _rows(deps)
        assert (row["event_id"], row["charge_picos"]) == ("req_1:1", event.charge_picos)
        assert (row["provenance"], row["hold"]) == ("reported", "settled")
        assert await _account(deps) == (counter_units(event.charge_picos, "USD"), 0)

    played(story)


def test_an_outcome_that_was_settled_and_booked_is_not_booked_again(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        event = an_event("req_1")
        usage.record(deps.engine, [(event, True)])
        spool = Spool.open(deps.spool_dir, "data-0")
        spool.intent("req_1", TAG, NOON_US, _template("req_1"))
        spool.outcome("req_1", ENCODER.encode(event))
        await spool.close()

        await _replay(deps)

        assert spooled.writers(deps.spool_dir) == ()
        assert len(_rows(deps)) == 1
        assert await Journal(deps.client, TAG, "x").length() == 0

    played(story)


def test_a_dispatch_without_an_outcome_is_charged_its_input(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        await _hold(deps, "req_1")
        spool = Spool.open(deps.spool_dir, "data-0")
        spool.intent("req_1", TAG, NOON_US, _template("req_1"))
        spool.dispatch("req_1", 1, "backend_eu", NOON_US + 5)
        await spool.close()

        await _replay_until_gone(deps)

        (row,) = _rows(deps)
        assert (row["input_tokens"], row["output_tokens"]) == (1_000, 0)
        assert (row["charge_picos"], row["cost_picos"]) == (3_000_000_000, 2_500_000_000)
        assert (row["provenance"], row["hold"], row["winner"]) == ("estimated", "estimated", True)
        assert await _account(deps) == (3_000_000, 0)

    played(story)


def test_output_that_a_checkpoint_saw_is_charged_too(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        await _hold(deps, "req_1")
        spool = Spool.open(deps.spool_dir, "data-0")
        spool.intent("req_1", TAG, NOON_US, _template("req_1"))
        spool.dispatch("req_1", 1, "backend_eu", NOON_US)
        spool.checkpoint("req_1", 1, 40, NOON_US + 1)
        spool.checkpoint("req_1", 1, 90, NOON_US + 2)
        await spool.close()

        await _replay_until_gone(deps)

        (row,) = _rows(deps)
        assert (row["output_tokens"], row["charge_picos"]) == (90, 3_000_000_000 + 90 * 15_000_000)

    played(story)


def test_of_two_attempts_without_outcome_the_last_is_charged(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        await _hold(deps, "req_1")
        spool = Spool.open(deps.spool_dir, "data-0")
        spool.intent("req_1", TAG, NOON_US, _template("req_1"))
        spool.dispatch("req_1", 1, "backend_eu", NOON_US)
        spool.dispatch("req_1", 2, "backend_other", NOON_US + 9)
        await spool.close()

        await _replay_until_gone(deps)

        first, last = _rows(deps)
        assert (first["winner"], first["charge_picos"]) == (False, 0)
        assert first["cost_picos"] == 2_500_000_000
        assert (last["winner"], last["charge_picos"]) == (True, 3_000_000_000)
        assert (last["backend_id"], last["cost_card"]) == ("backend_other", None)
        assert await _account(deps) == (3_000_000, 0)

    played(story)


def test_a_hold_that_reached_no_backend_is_released(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        await _hold(deps, "req_1")
        spool = Spool.open(deps.spool_dir, "data-0")
        spool.intent("req_1", TAG, NOON_US, _template("req_1"))
        await spool.close()

        await _replay(deps)

        assert spooled.writers(deps.spool_dir) == ()
        assert _rows(deps) == []
        assert await _account(deps) == (0, 0)

    played(story)


def test_a_hold_that_its_worker_died_before_using_is_released_with_its_spool(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        spool = Spool.open(deps.spool_dir, "data-0")
        await _hold(deps, "req_1", spool.name)
        await _hold(deps, "req_2", "another.w_1")
        await spool.close()

        await _replay(deps)

        assert spooled.writers(deps.spool_dir) == ()
        assert await records.ids(deps.client, TAG) == ("req_2",)
        assert _rows(deps) == []

    played(story)


def test_a_hold_that_its_worker_died_releasing_is_released_with_its_spool(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        spool = Spool.open(deps.spool_dir, "data-0")
        await _hold(deps, "req_1", spool.name)
        spool.intent("req_1", TAG, NOON_US, _template("req_1"))
        spool.closed("req_1")
        await spool.close()

        await _replay(deps)

        assert spooled.writers(deps.spool_dir) == ()
        assert await records.ids(deps.client, TAG) == ()
        assert _rows(deps) == []
        assert await _account(deps) == (0, 0)

    played(story)


def test_after_a_power_cut_what_may_have_been_sent_is_charged_its_input(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        spool = Spool.open(deps.spool_dir, "data-0")
        await _hold(deps, "req_1", spool.name)
        await _hold(deps, "req_2", spool.name)
        spool.intent("req_1", TAG, NOON_US, _template("req_1"))
        await spool.close()
        (spool.path / LOCK_NAME).write_text("another start of the machine")

        await _replay_until_gone(deps)

        (row,) = _rows(deps)
        assert (row["event_id"], row["hold"], row["input_tokens"]) == (
            "req_1:-1",
            "estimated",
            1000,
        )
        assert await records.ids(deps.client, TAG) == ("req_2",), "it is the reaper's"

    played(story)


def test_after_a_power_cut_what_had_been_released_is_not_charged(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        spool = Spool.open(deps.spool_dir, "data-0")
        spool.intent("req_1", TAG, NOON_US, _template("req_1"))
        await spool.close()
        (spool.path / LOCK_NAME).write_text("another start of the machine")

        await _replay(deps)

        assert spooled.writers(deps.spool_dir) == ()
        assert await Journal(deps.client, TAG, "x").length() == 0

    played(story)


def test_what_lost_and_who_won_are_told_apart(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        lost = an_event("req_1", attempt=1, winner=False, usage=Meters())
        won = an_event("req_1", attempt=2)
        await _hold(deps, "req_1")
        spool = Spool.open(deps.spool_dir, "data-0")
        spool.intent("req_1", TAG, NOON_US, _template("req_1"))
        for event in (lost, won):
            spool.dispatch("req_1", event.attempt, event.backend_id, NOON_US)
        for event in (lost, won):
            spool.outcome("req_1", ENCODER.encode(event))
        await spool.close()

        await _replay_until_gone(deps)

        assert [row["hold"] for row in _rows(deps)] == ["settled", "settled"]
        assert await _account(deps) == (counter_units(won.charge_picos, "USD"), 0)

    played(story)


def test_a_living_workers_spool_is_left_alone(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        spool = Spool.open(deps.spool_dir, "data-0")
        try:
            await _hold(deps, "req_1")
            spool.intent("req_1", TAG, NOON_US, _template("req_1"))
            await _replay(deps)
            assert (await _account(deps))[1] > 0
            assert len(spooled.writers(deps.spool_dir)) == 1
        finally:
            await spool.close()

    played(story)


def test_a_torn_record_at_the_end_takes_nothing_with_it(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        spool = Spool.open(deps.spool_dir, "data-0")
        spool.intent("req_1", TAG, NOON_US, _template("req_1"))
        spool.dispatch("req_1", 1, "backend_eu", NOON_US)
        spool.outcome("req_1", ENCODER.encode(an_event("req_1")))
        await spool.close()
        segment = spooled.segments(spool.path)[-1]
        segment.write_bytes(segment.read_bytes()[:-7])

        await _replay_until_gone(deps)

        (row,) = _rows(deps)
        assert row["provenance"] == "estimated", "the outcome was torn, the dispatch was not"

    played(story)


def test_an_event_that_the_ledger_refuses_does_not_keep_the_spool(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        spool = Spool.open(deps.spool_dir, "data-0")
        spool.intent("req_1", TAG, NOON_US, _template("req_1"))
        spool.dispatch("req_1", 1, "backend_eu", NOON_US)
        spool.outcome("req_1", ENCODER.encode(an_event("req_1", charge_picos=1)))
        await spool.close()

        await _replay_until_gone(deps)

        assert _rows(deps) == []
        assert await deps.client.hkeys(keys.quarantine(TAG)) == [b"req_1:1"]

    played(story)


def test_booked_segments_of_a_living_worker_are_deleted(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        events = [an_event(f"req_{n}") for n in range(40)]
        with living_spool(deps.spool_dir, [_records(events[n : n + 4]) for n in range(0, 40, 4)]):
            (writer,) = spooled.writers(deps.spool_dir)
            usage.record(deps.engine, [(event, True) for event in events[:20]])

            await prune.run(deps, asyncio.Event())
            between = len(spooled.segments(writer))
            usage.record(deps.engine, [(event, True) for event in events])
            await prune.run(deps, asyncio.Event())

            assert between == 5
            assert len(spooled.segments(writer)) == 1

    played(story)


def _records(events: list[UsageEvent]) -> list[Record]:
    return [
        record
        for event in events
        for record in (
            Intent(event.request_id, TAG, NOON_US, b""),
            Dispatch(event.request_id, 1, event.backend_id, NOON_US),
            Outcome(event.request_id, ENCODER.encode(event)),
        )
    ]


def test_served_without_store_on_a_machine_that_went_down_is_estimated_once(played: Any) -> None:
    async def story(deps: JobDeps) -> None:
        spool = Spool.open(deps.spool_dir, "data-0")
        spool.intent("req_1", TAG, NOON_US, _template("req_1"), (BUDGET,))
        await spool.close()
        (spool.path / LOCK_NAME).write_text("another start of the machine")
        await _replay_until_gone(deps)
        row = _rows(deps)[0]
        assert (row["attempt"], row["hold"]) == (-1, "estimated")
        assert await _account(deps) == (row["counter_nanos"], 0)

    played(story)


def _template(request: str) -> bytes:
    event: UsageEvent = an_event(
        request, attempt=0, usage=WORST, provenance=Provenance.ESTIMATED, reported=None
    )
    return ENCODER.encode(event)


async def _hold(deps: JobDeps, hold_id: str, owner: str = "") -> None:
    granted = await deps.holds.admit(
        TAG,
        Admission(
            hold_id=hold_id,
            ttl_ms=30_000,
            input_money=3_000_000,
            output_money=15_000,
            input_tokens=1_000,
            wanted=500,
            least=500,
            choices=1,
            gates=(),
            slots=(),
            accounts=(BUDGET,),
            owner=owner,
        ),
    )
    assert isinstance(granted, Granted)


async def _account(deps: JobDeps) -> tuple[int, int]:
    posted, held = await deps.client.hmget(ACCOUNT, ["posted", "held"])
    return int(posted or 0), int(held or 0)


async def _replay(deps: JobDeps) -> None:
    await replay_spool.run(deps, asyncio.Event())


async def _replay_until_gone(deps: JobDeps) -> None:
    """Hand in, drain, look again: the spool goes only when the ledger has everything."""
    await _replay(deps)
    assert len(spooled.writers(deps.spool_dir)) == 1
    await _replay(deps)  # a second look before the drain sends nothing twice
    length = await Journal(deps.client, TAG, "x").length()
    await drain(deps, TAG, at_once())
    await _replay(deps)
    assert length <= 2
    assert spooled.writers(deps.spool_dir) == ()


def _rows(deps: JobDeps) -> list[dict[str, Any]]:
    with reading(deps.engine) as connection:
        found = connection.execute(select(usage_rows).order_by(usage_rows.c.event_id))
        return [dict(row) for row in found.mappings()]
