"""The journal as its consumers see it, on real stores."""

from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from gateway.stores.redis import keys
from gateway.stores.redis.holds import Settlement, StoreUnavailable
from gateway.stores.redis.journal import AT_ONCE, Journal
from tests.holding import TAG, ask, open_holds, open_reader
from tests.running import run


def test_what_settle_writes_is_taken_once_and_leaves_when_it_is_done(any_store_url: str) -> None:
    async def story(reader: Redis) -> None:
        journal = Journal(reader, TAG, "job-1")
        assert await journal.take(10) == ()
        async with open_holds(any_store_url) as holds:
            one = ask()
            await holds.admit(TAG, one)
            await holds.settle(TAG, Settlement(one.hold_id, 1, 1, event=b"\x00found"))
            await holds.settle(TAG, Settlement("unknown", 1, 1, event=b"absent"))
        taken = await journal.take(10)
        assert [(entry.event, entry.hold_found) for entry in taken] == [
            (b"\x00found", True),
            (b"absent", False),
        ]
        assert await journal.take(10, block_ms=5) == ()
        assert await journal.length() == 2
        await journal.done([entry.id for entry in taken])
        await journal.done([])
        assert await journal.length() == 0

    run(_with(any_store_url, story))


def test_what_a_dead_consumer_had_taken_is_claimed_by_the_next(any_store_url: str) -> None:
    async def story(reader: Redis) -> None:
        await _write(reader, 3)
        dead, alive = Journal(reader, TAG, "dead"), Journal(reader, TAG, "alive")
        taken = await dead.take(2)
        assert await alive.reclaim(10, idle_ms=60_000) == ()
        assert await alive.reclaim(10, idle_ms=0) == taken
        (last,) = await alive.take(10)
        await alive.done([*(entry.id for entry in taken), last.id])
        assert await dead.reclaim(10, idle_ms=0) == ()

    run(_with(any_store_url, story))


def test_however_many_are_asked_for_no_command_holds_the_store_still_for_all(
    any_store_url: str,
) -> None:
    async def story(reader: Redis) -> None:
        journal = Journal(reader, TAG, "job-1")
        await _write(reader, 2 * AT_ONCE + 1)
        await reader.config_resetstat()
        taken = await journal.take(10 * AT_ONCE)
        await journal.done([entry.id for entry in taken])
        told = await reader.info("commandstats")

        assert [entry.event for entry in taken] == [b"event %d" % n for n in range(2 * AT_ONCE + 1)]
        assert await journal.length() == 0
        commands = ("xreadgroup", "xack", "xdel")
        calls = {name: told[f"cmdstat_{name}"]["calls"] for name in commands}
        failed = told["cmdstat_xreadgroup"]["failed_calls"]  # before there is a group
        assert calls | {"xreadgroup": calls["xreadgroup"] - failed} == dict.fromkeys(commands, 3)

    run(_with(any_store_url, story))


def test_a_store_that_lost_everything_gets_a_new_group(any_store_url: str) -> None:
    async def story(reader: Redis) -> None:
        journal = Journal(reader, TAG, "job-1")
        await journal.take(1)
        await reader.flushall()
        await _write(reader, 1)
        assert [entry.event for entry in await journal.take(1)] == [b"event 0"]
        assert await journal.reclaim(1, idle_ms=60_000) == ()

    run(_with(any_store_url, story))


def test_a_store_that_is_away_is_said_to_be_unavailable() -> None:
    async def story() -> None:
        async with open_reader("unix:///tmp/mh-no-such.sock") as reader:
            journal = Journal(reader, TAG, "job-1")
            with pytest.raises(StoreUnavailable):
                await journal.take(1)
            with pytest.raises(StoreUnavailable):
                await journal.done([b"1-1"])

    run(story())


def test_a_key_that_is_no_journal_is_said_to_be_unusable(store_url: str) -> None:
    async def story(reader: Redis) -> None:
        await reader.set(keys.journal(TAG), "no stream")
        with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
            await Journal(reader, TAG, "job-1").take(1)

    run(_with(store_url, story))


async def _write(reader: Redis, how_many: int) -> None:
    for n in range(how_many):
        await reader.xadd(keys.journal(TAG), {"e": f"event {n}", "h": "1"})


async def _with(url: str, story: Callable[[Redis], Awaitable[None]]) -> None:
    async with open_reader(url) as reader:
        await story(reader)
