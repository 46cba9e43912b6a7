"""What a store knew and lost is neither done twice nor forgotten while its worker lives on."""

import asyncio
from pathlib import Path

import msgspec
import pytest
import redis

from gateway.jobs import open_accounts, tell_again
from gateway.stores.redis import keys
from gateway.wiring.jobs import open_jobs
from tests.holding import TAG
from tests.integration import test_leases, test_outage
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


async def _told_and_counted(it: test_outage.Scene, store_url: str) -> None:
    """By jobs that reach the store, of which the worker is cut off."""
    direct = msgspec.structs.replace(it.house.settings, redis_url=store_url)
    async with open_jobs(direct, "jobs-1") as deps:
        for _ in range(2):
            await tell_again.run(deps, asyncio.Event())
        await open_accounts.run(deps, asyncio.Event())


@pytest.mark.parametrize("outage", ["open", "bounded"])
def test_what_was_told_of_a_worker_that_is_cut_off_is_not_posted_by_it_again(
    tmp_path: Path, store_url: str, outage: str
) -> None:
    async def scenario() -> None:
        async with test_outage.scene(tmp_path, store_url) as it:
            budget = await it.budget(outage, "100")
            assert (await it.ask()).status_code == 200
            if outage == "bounded":
                await test_leases.lent(it)
            await it.house.settled()
            leased = test_leases.leased(store_url)
            it.store_goes()
            assert (await it.ask()).status_code == 200
            await it.house.settled()
            await _told_and_counted(it, store_url)
            if outage == "bounded":  # what was spent of the lease is set aside no more
                assert test_leases.leased(store_url) == leased - test_outage.COST
            await it.store_returns()
            await it.agree(budget, "0.2")

    run(scenario(), within_s=60)


def test_what_was_told_while_its_hold_is_there_ends_it(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with test_outage.scene(tmp_path, store_url) as it:
            budget = await it.budget("open", "100")
            it.backend.answering.clear()
            asking = asyncio.create_task(it.ask())
            while not it.backend.book:
                await asyncio.sleep(0.005)
            it.store_goes()
            it.backend.answering.set()
            assert (await asking).status_code == 200
            await it.house.settled()
            await _told_and_counted(it, store_url)
            await it.store_returns()
            await it.agree(budget, "0.1")

    run(scenario(), within_s=60)
