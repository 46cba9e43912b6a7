"""Holds that nobody keeps alive end: once, by the best evidence, whoever comes late."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from billing.meters import Meters, Provenance
from billing.usage import ENCODER, UsageEvent
from gateway.jobs import reap_holds
from gateway.jobs.deps import JobDeps
from gateway.jobs.drain_journal import drain
from gateway.stores.redis import keys, leases, records
from gateway.stores.redis.holds import (
    TOKENS,
    Account,
    Admission,
    Granted,
    Reaping,
    Settlement,
)
from gateway.stores.redis.journal import Journal
from gateway.stores.spool import Spool
from gateway.stores.sql import usage
from gateway.stores.sql.engine import reading
from gateway.stores.sql.tables import usage_rows
from tests.integration.test_jobs_drain import TAG, at_once, some_jobs
from tests.ledger_events import NOON_US, a_ledger, an_event
from tests.running import run

MONEY_KEY = keys.account(TAG, "budget_1", "total")
TOKENS_KEY = keys.account(TAG, "limit_1:tpd", "total")
WORST = Meters(input=1_000, output=500)
INPUT_ONLY = (3_000_000, 1_000)  # nanos and tokens of the template's input
Story = Callable[[JobDeps], Any]


@pytest.fixture
def played(database_url: str, store_url: str, tmp_path: Path) -> Callable[[Story], None]:
    """Plays a story over a ledger, a store and an empty spool directory."""

    def play(story: Story) -> None:
        async def whole(engine: Engine) -> None:
            async with some_jobs(engine, store_url, tmp_path / "spool") as deps:
                await story(deps)

        with a_ledger(database_url) as engine:
            run(whole(engine))

    return play


async def hold(deps: JobDeps, hold_id: str, owner: str = "", ttl_ms: int = 0) -> None:
    """A hold that is overdue at once, unless it is given time to live."""
    accounts = (
        Account(MONEY_KEY, 10**12, 0, 2**53 - 1, 0, "budget_1"),
        Account(TOKENS_KEY, 10**9, 0, 2**53 - 1, TOKENS, "limit_1"),
    )
    template = an_event(
        hold_id, 0, usage=WORST, provenance=Provenance.ESTIMATED, reported=None, counted=None
    )
    granted = await deps.holds.admit(
        TAG,
        Admission(
            hold_id=hold_id,
            ttl_ms=ttl_ms,
            input_money=3_000_000,
            output_money=15_000,
            input_tokens=1_000,
            wanted=500,
            least=500,
            choices=1,
            gates=(),
            slots=(),
            accounts=accounts,
            meta=ENCODER.encode(template),
            owner=owner,
        ),
    )
    assert isinstance(granted, Granted)


async def posted(deps: JobDeps) -> tuple[int, int]:
    """Money and tokens; with nothing held any more."""
    found = []
    for key in (MONEY_KEY, TOKENS_KEY):
        spent, held = await deps.client.hmget(key, ["posted", "held"])
        assert int(held) == 0
        found.append(int(spent or 0))
    assert await records.living(deps.client, TAG) == 0
    return found[0], found[1]


async def rows(deps: JobDeps) -> list[dict[str, Any]]:
    await drain(deps, TAG, at_once())
    with reading(deps.engine) as connection:
        found = connection.execute(select(usage_rows).order_by(usage_rows.c.event_id))
        return [dict(row) for row in found.mappings()]


async def reap(deps: JobDeps) -> int:
    return await reap_holds.reap(deps, TAG, late_ms=0)


def test_a_hold_whose_spool_is_lost_is_charged_its_input(played: Callable[[Story], None]) -> None:
    async def story(deps: JobDeps) -> None:
        lost = Spool.open(deps.spool_dir, "data-0")
        await hold(deps, "req_1", lost.name)
        lost.intent("req_1", TAG, NOON_US, b"")
        lost.dispatch("req_1", 1, "backend_eu", NOON_US)
        await lost.close()
        shutil.rmtree(lost.path)

        assert await reap(deps) == 1

        assert await posted(deps) == INPUT_ONLY
        (row,) = await rows(deps)
        assert (row["event_id"], row["input_tokens"], row["output_tokens"]) == (
            "req_1:-1",
            1_000,
            0,
        )
        assert (row["provenance"], row["hold"], row["winner"]) == ("estimated", "estimated", True)
        assert await reap(deps) == 0

    played(story)


def test_a_hold_that_never_got_an_intent_is_released(played: Callable[[Story], None]) -> None:
    async def story(deps: JobDeps) -> None:
        spool = Spool.open(deps.spool_dir, "data-0")
        try:
            await hold(deps, "req_1", spool.name)

            assert await reap(deps) == 1

            assert await posted(deps) == (0, 0)
            assert await rows(deps) == []
        finally:
            await spool.close()

    played(story)


def test_a_living_worker_keeps_what_it_is_at(played: Callable[[Story], None]) -> None:
    async def story(deps: JobDeps) -> None:
        spool = Spool.open(deps.spool_dir, "data-0")
        try:
            await hold(deps, "req_1", spool.name)
            spool.intent("req_1", TAG, NOON_US, b"")
            spool.dispatch("req_1", 1, "backend_eu", NOON_US)

            assert await reap(deps) == 0
            assert await records.living(deps.client, TAG) == 1
        finally:
            await spool.close()

    played(story)


def test_an_outcome_that_only_the_living_worker_knows_is_settled(
    played: Callable[[Story], None],
) -> None:
    async def story(deps: JobDeps) -> None:
        event = an_event("req_1")
        spool = Spool.open(deps.spool_dir, "data-0")
        try:
            await hold(deps, "req_1", spool.name)
            spool.intent("req_1", TAG, NOON_US, b"")
            spool.outcome("req_1", ENCODER.encode(event))

            assert await reap(deps) == 1

            assert await posted(deps) == (event.counter_nanos, event.usage.total)
            (row,) = await rows(deps)
            assert (row["hold"], row["charge_picos"]) == ("settled", event.charge_picos)
        finally:
            await spool.close()

    played(story)


def test_what_the_journal_or_the_ledger_knows_is_posted_and_not_booked_again(
    played: Callable[[Story], None],
) -> None:
    async def story(deps: JobDeps) -> None:
        booked, journaled = an_event("req_1"), an_event("req_2")
        usage.record(deps.engine, [(booked, True)])
        for event in (journaled, booked, journaled):
            await deps.holds.settle(
                TAG, Settlement(event.event_id, 0, 0, (), ENCODER.encode(event))
            )
        await hold(deps, "req_1")
        await hold(deps, "req_2")

        assert await reap(deps) == 2

        expected = (2 * booked.counter_nanos, 2 * booked.usage.total)
        assert await posted(deps) == expected
        assert [row["event_id"] for row in await rows(deps)] == ["req_1:1", "req_2:1"]

    played(story)


def test_a_zombies_settlement_moves_no_counter_and_the_ledger_ends_with_the_truth(
    played: Callable[[Story], None],
) -> None:
    async def story(deps: JobDeps) -> None:
        truth = an_event("req_1", 2)
        await hold(deps, "req_1")
        assert await reap(deps) == 1
        assert len(await rows(deps)) == 1

        for _ in range(2):  # it does not know whether the first was heard
            assert not await deps.holds.settle(TAG, _settlement(truth))

        assert await posted(deps) == INPUT_ONLY
        found = await rows(deps)
        assert [row["event_id"] for row in found] == ["req_1:-1", "req_1:-1:reversed", "req_1:2"]
        assert sum(row["charge_picos"] for row in found) == truth.charge_picos
        assert sum(row["counter_nanos"] for row in found) == truth.counter_nanos

    played(story)


def test_a_hold_that_lives_again_is_not_ended_by_a_reaper_that_was_held_up(
    played: Callable[[Story], None],
) -> None:
    async def story(deps: JobDeps) -> None:
        await hold(deps, "req_1")
        lease = await leases.take(deps.client, f"reap:{{{TAG}}}", 10_000)
        assert lease is not None
        estimate = an_event("req_1", 0, hold="estimated")
        mine = Reaping(0, keys.lease(lease.name), lease.token)
        another = Reaping(0, keys.lease(lease.name), "older")
        assert not await deps.holds.settle(TAG, _settlement(estimate, another))

        assert await deps.holds.extend(TAG, ["req_1"], 30_000) == ()
        assert not await deps.holds.settle(TAG, _settlement(estimate, mine))

        assert await records.living(deps.client, TAG) == 1
        assert await Journal(deps.client, TAG, "x").length() == 0
        assert await deps.holds.settle(TAG, _settlement(an_event("req_1")))

    played(story)


def test_only_one_reaper_is_at_work(played: Callable[[Story], None]) -> None:
    async def story(deps: JobDeps) -> None:
        for n in range(20):
            await hold(deps, f"req_{n}")

        ended = await asyncio.gather(*(reap(deps) for _ in range(4)))

        assert sorted(ended) == [0, 0, 0, 20]
        assert await posted(deps) == (20 * INPUT_ONLY[0], 20 * INPUT_ONLY[1])
        assert len(await rows(deps)) == 20

    played(story)


def test_the_job_leaves_what_is_not_long_overdue(played: Callable[[Story], None]) -> None:
    async def story(deps: JobDeps) -> None:
        await hold(deps, "req_1")
        await hold(deps, "req_2", ttl_ms=30_000)

        await reap_holds.run(deps, asyncio.Event())
        assert await records.living(deps.client, TAG) == 2

    played(story)


def _settlement(event: UsageEvent, reaping: Reaping | None = None) -> Settlement:
    money, tokens = event.counter_nanos, event.usage.total
    return Settlement(event.request_id, money, tokens, (), ENCODER.encode(event), reaping)
