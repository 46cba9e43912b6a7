"""What a store knew and lost is neither done twice nor forgotten while its worker lives on."""

import asyncio
from pathlib import Path

import redis

from gateway.jobs import open_accounts, tell_again
from gateway.stores.redis import keys
from tests.holding import TAG
from tests.integration.test_store_loss import scene
from tests.running import run


def test_a_request_that_has_ended_keeps_its_idempotency_key_when_its_hold_comes_back(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, dbfilename="old.rdb", appendonly="no") as here:
            here.backend.answering.clear()
            asking = asyncio.create_task(here.ask(once="k1"))
            await here.begun(1)
            with redis.Redis.from_url(here.store.url) as client:
                client.save()
            here.backend.answering.set()
            assert await asking == 200
            await here.house.settled()
            here.store.kill()
            here.store.start(whole=False)
            await here.rebuilt()

            assert await here.ask(once="k1") == 409
            assert await here.standing() == ("0.1", "0")
            assert len(here.backend.book) == 1

    run(scenario())


def test_an_outcome_that_a_store_confirmed_and_lost_is_told_again_while_its_worker_lives(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as here:
            assert await here.ask() == 200
            await here.house.settled()
            with redis.Redis.from_url(here.store.url) as client:
                client.delete(keys.journal(TAG))  # as where another home rebuilt the counters
            async with here.jobs() as deps:
                for entries in (0, 1, 1):
                    await tell_again.run(deps, asyncio.Event())
                    assert await deps.client.xlen(keys.journal(TAG)) == entries
            assert await here.drained() == 10**8
            assert await here.standing() == ("0.1", "0")

    run(scenario())


def test_what_is_told_again_is_counted_at_the_next_look(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as here:
            assert await here.ask() == 200
            await here.house.settled()
            async with here.jobs() as deps:
                await open_accounts.run(deps, asyncio.Event())
                with redis.Redis.from_url(here.store.url) as client:
                    client.delete(keys.journal(TAG))
                    (account,) = client.scan_iter(f"mh:{{{TAG}}}:acct:*")
                    client.hset(account, "posted", 0)
                for shown in ("0", "0.1"):
                    await tell_again.run(deps, asyncio.Event())
                    await open_accounts.run(deps, asyncio.Event())
                    assert await here.standing() == (shown, "0")

    run(scenario())
