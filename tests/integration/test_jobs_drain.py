"""The journal ends up in the ledger: every entry once, whatever dies, whatever is unfit."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import OperationalError

from billing.meters import Meters
from billing.usage import ENCODER, UsageEvent
from gateway import clock
from gateway.jobs.deps import JobDeps
from gateway.jobs.drain_journal import drain
from gateway.stores.redis import keys, leases, quarantine
from gateway.stores.redis.address import parse
from gateway.stores.redis.channel import Channels
from gateway.stores.redis.client import open_client
from gateway.stores.redis.holds import HoldStore, Settlement
from gateway.stores.redis.journal import Journal
from gateway.stores.redis.refused import Refused
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.rollups import rolled
from gateway.stores.sql.tables import postings, usage_rows
from tests.ledger_events import a_ledger, an_event
from tests.running import run

TAG = "s00"


@contextlib.asynccontextmanager
async def some_jobs(engine: Engine, url: str, spool_dir: Path) -> AsyncIterator[JobDeps]:
    client, channels = open_client(url), Channels(parse(url))
    await channels.open()
    try:
        yield JobDeps(engine, client, HoldStore(channels), spool_dir, "jobs-1")
    finally:
        await channels.close()
        await client.aclose()


def at_once() -> asyncio.Event:
    """An order to stop: a turn then ends when the journal is empty."""
    stopping = asyncio.Event()
    stopping.set()
    return stopping


async def settle(deps: JobDeps, event: UsageEvent) -> None:
    await deps.holds.settle(TAG, Settlement(event.event_id, 0, 0, (), ENCODER.encode(event)))


def booked(engine: Engine) -> dict[str, int]:
    with reading(engine) as connection:
        return {
            "rows": connection.scalar(select(func.count()).select_from(usage_rows)) or 0,
            "attempts": int(connection.scalar(select(func.sum(rolled.c.attempts))) or 0),
            "postings": connection.scalar(select(func.count()).select_from(postings)) or 0,
        }


def test_what_was_settled_is_booked_and_leaves_the_journal(
    database_url: str, store_url: str, tmp_path: Path
) -> None:
    async def story(engine: Engine) -> None:
        async with some_jobs(engine, store_url, tmp_path) as deps:
            for n in range(100):
                await settle(deps, an_event(f"req_{n}"))

            assert await drain(deps, TAG, at_once()) == 100

            assert booked(engine) == {"rows": 100, "attempts": 100, "postings": 400}
            assert await Journal(deps.client, TAG, "x").length() == 0
            assert await drain(deps, TAG, at_once()) == 0

    with a_ledger(database_url) as engine:
        run(story(engine))


def test_who_stops_waits_for_a_lease_that_a_lost_store_was_not_given_back(
    database_url: str, store_url: str, tmp_path: Path
) -> None:
    """It was its own: with nothing booked the entries would wait for the next start."""

    async def story(engine: Engine) -> None:
        async with some_jobs(engine, store_url, tmp_path) as deps:
            assert await leases.take(deps.client, keys.drain(TAG), 1_000) is not None
            assert await drain(deps, TAG, at_once()) == 0  # nothing waits: neither does it
            await settle(deps, an_event("req_1"))

            assert await drain(deps, TAG, at_once()) == 1

    with a_ledger(database_url) as engine:
        run(story(engine))


def test_entries_that_a_dead_reader_had_taken_are_booked_by_the_next(
    sqlite_url: str, store_url: str, tmp_path: Path
) -> None:
    async def story(engine: Engine) -> None:
        async with some_jobs(engine, store_url, tmp_path) as deps:
            for n in range(5):
                await settle(deps, an_event(f"req_{n}"))
            taken = await Journal(deps.client, TAG, "the dead").take(3)
            assert len(taken) == 3

            assert await drain(deps, TAG, at_once()) == 5
            assert await Journal(deps.client, TAG, "x").length() == 0

    with a_ledger(sqlite_url) as engine:
        run(story(engine))


def test_booked_but_not_acknowledged_is_acknowledged_and_not_booked_again(
    database_url: str, store_url: str, tmp_path: Path
) -> None:
    async def story(engine: Engine) -> None:
        from gateway.jobs.booking import book

        async with some_jobs(engine, store_url, tmp_path) as deps:
            for n in range(5):
                await settle(deps, an_event(f"req_{n}"))
            taken = await Journal(deps.client, TAG, "the dead").take(5)
            assert book(engine, TAG, taken) == (5, [])

            assert await drain(deps, TAG, at_once()) == 0

            assert booked(engine) == {"rows": 5, "attempts": 5, "postings": 20}
            assert await Journal(deps.client, TAG, "x").length() == 0

    with a_ledger(database_url) as engine:
        run(story(engine))


def test_what_the_ledger_refuses_is_set_aside_and_the_rest_goes_on(
    database_url: str, store_url: str, tmp_path: Path
) -> None:
    async def story(engine: Engine) -> None:
        async with some_jobs(engine, store_url, tmp_path) as deps:
            for n in range(20):
                await settle(deps, an_event(f"req_{n}"))
            await settle(deps, an_event("req_wrong", charge_picos=1))
            await settle(deps, an_event("req_huge", duration_us=2**63))
            await settle(deps, an_event("req_7", usage=Meters(output=9_999)))
            await deps.client.xadd(keys.journal(TAG), {"e": b"\x93garbage", "h": 1})

            assert await drain(deps, TAG, at_once()) == 20

            aside = await quarantine.read(deps.client, TAG)
            reasons = {each.id: each.reason for each in aside.values()}
            assert len(reasons) == 4
            assert "its card makes it" in reasons["req_wrong:1"]
            assert "req_huge:1" in reasons
            assert reasons["req_7:1"].startswith("UnfitEventError: req_7:1 is booked, and says")
            assert await Journal(deps.client, TAG, "x").length() == 0
            assert booked(engine)["rows"] == 20

    with a_ledger(database_url) as engine:
        run(story(engine))


def test_what_is_dated_ahead_of_our_clock_is_set_aside_until_its_time_has_come(
    sqlite_url: str, store_url: str, tmp_path: Path
) -> None:
    async def story(engine: Engine) -> None:
        now_us = clock.now_us()
        near, far = now_us + 9 * 60_000_000, now_us + 3_600_000_000
        async with some_jobs(engine, store_url, tmp_path) as deps:
            await settle(deps, an_event("req_near", admitted_at_us=near, finished_at_us=near))
            await settle(deps, an_event("req_far", admitted_at_us=far, finished_at_us=far))

            assert await drain(deps, TAG, at_once()) == 1

            (early,) = (await quarantine.read(deps.client, TAG)).values()
            assert (early.id, early.again_us) == ("req_far:1", far)
            assert "look at the clock of the worker" in early.reason
            assert await drain(deps, TAG, at_once()) == 0
            assert await quarantine.ids(deps.client, TAG) == {"req_far:1"}

    with a_ledger(sqlite_url) as engine:
        run(story(engine))


def test_what_was_dated_ahead_is_booked_once_and_what_is_unfit_then_stays(
    database_url: str, store_url: str, tmp_path: Path
) -> None:
    async def story(engine: Engine) -> None:
        good, bad = an_event("req_then"), an_event("req_odd", charge_picos=1)
        aside = [
            Refused(each.event_id, ENCODER.encode(each), True, "early", 1, again_us=1)
            for each in (good, bad)
        ]
        async with some_jobs(engine, store_url, tmp_path) as deps:
            await quarantine.set_aside(deps.client, TAG, aside)

            assert await drain(deps, TAG, at_once()) == 1

            (left,) = (await quarantine.read(deps.client, TAG)).values()
            assert (left.id, left.again_us) == ("req_odd:1", 0)
            assert booked(engine)["rows"] == 1

    with a_ledger(database_url) as engine:
        run(story(engine))


def test_while_the_database_is_away_entries_wait_in_the_journal(
    sqlite_url: str, store_url: str, tmp_path: Path
) -> None:
    async def story(engine: Engine) -> None:
        async with some_jobs(engine, store_url, tmp_path) as deps:
            await settle(deps, an_event("req_1"))
            with transaction(engine) as connection:
                connection.execute(text("ALTER TABLE usage_rows RENAME TO away"))
            with pytest.RaisesGroup(OperationalError):
                await drain(deps, TAG, at_once())
            assert await Journal(deps.client, TAG, "x").length() == 1

            with transaction(engine) as connection:
                connection.execute(text("ALTER TABLE away RENAME TO usage_rows"))
            assert await drain(deps, TAG, at_once()) == 1

    with a_ledger(sqlite_url) as engine:
        run(story(engine))


def test_one_process_at_a_time_drains_a_tag(
    sqlite_url: str, store_url: str, tmp_path: Path
) -> None:
    async def story(engine: Engine) -> None:
        async with some_jobs(engine, store_url, tmp_path) as deps:
            await settle(deps, an_event("req_1"))
            other = await leases.take(deps.client, keys.drain(TAG), 60_000)
            assert other is not None
            assert await drain(deps, TAG, asyncio.Event()) == 0
            await leases.give_back(deps.client, other)
            assert await drain(deps, TAG, at_once()) == 1

    with a_ledger(sqlite_url) as engine:
        run(story(engine))
