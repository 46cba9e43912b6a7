"""/readyz through a loss of the store: what it says is so, and no worker goes out of service for
what all of them lack.
"""

import asyncio
from pathlib import Path

import httpx
import redis

from gateway.dataplane.upkeep import Whole
from tests.integration.test_store_loss import Scene, scene
from tests.running import run


async def told(client: httpx.AsyncClient, beginning: str) -> None:
    """Returns once that is what is said of the store; the worker is in service all the while."""
    async with asyncio.timeout(60):
        while True:
            answer = await client.get("/readyz")
            assert answer.status_code == 200, answer.text
            if answer.json()["checks"]["store"].startswith(beginning):
                return
            await asyncio.sleep(0.02)


async def rebuilt(here: Scene) -> None:
    await here.rebuilt()
    await told(here.house.client, "ok")
    while await here.ask() != 200:  # the worker learns of the number that the ledger has
        await asyncio.sleep(0.02)


def test_a_store_that_is_back_is_not_called_whole_before_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as here:
            await told(here.house.client, "ok")
            here.store.kill()
            await told(here.house.client, "out of reach")
            here.store.start(whole=False)
            await told(here.house.client, "its counters are not whole")
            assert await here.ask() == 503
            await rebuilt(here)

    run(scenario())


def test_a_store_that_is_emptied_while_nobody_asks_is_found_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as here:
            await told(here.house.client, "ok")
            with redis.Redis.from_url(here.store.url) as client:
                client.flushall()
            await told(here.house.client, "its counters are not whole")
            await rebuilt(here)

    run(scenario())


def test_who_begins_waits_for_whole_counters_but_not_for_a_store_that_is_away(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as here:
            plane = here.house.data.plane
            here.store.kill()
            await told(here.house.client, "out of reach")
            without = Whole(plane, plane.holds)
            await without.look()
            assert without.begun
            here.store.start(whole=False)
            await told(here.house.client, "its counters are not whole")
            beside = Whole(plane, plane.holds)
            await without.look()
            await beside.look()
            assert without.begun
            assert not beside.begun
            await rebuilt(here)
            await beside.look()
            assert beside.begun

    run(scenario())


def test_a_store_that_is_silent_is_not_called_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as here:
            here.store.freeze()
            try:
                await told(here.house.client, "it does not answer")
            finally:
                here.store.thaw()
            await told(here.house.client, "ok")

    run(scenario())
