"""What engines publish of their load: who is asked for it, how, and what becomes of it."""

import asyncio
from pathlib import Path
from typing import Any

from gateway import clock
from gateway.backends.lookout import Lookout
from gateway.dataplane import sharing
from gateway.jobs import look_at_engines
from gateway.jobs.deps import JobDeps
from gateway.stores.redis import engines
from tests.house import House, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]
OWN: dict[str, Any] = {"placement": "on_prem", "credential": "a-secret-of-the-backend"}
FULL = b'vllm:num_requests_waiting{engine="0"} 9.0\nvllm:kv_cache_usage_perc{engine="0"} 0.5\n'
IDLE = b'vllm:num_requests_waiting{engine="0"} 0.0\nvllm:kv_cache_usage_perc{engine="0"} 0.1\n'


def looking(house: House, lookout: Lookout) -> JobDeps:
    nothing: Any = None
    return JobDeps(
        engine=house.opened.deps.engine,
        client=nothing,
        holds=house.data.plane.holds,
        spool_dir=Path(),
        name="jobs-1",
        lookout=lookout,
    )


async def heard(house: House) -> None:
    """Returns once the data plane knows what was published."""
    found = await engines.read(house.data.channels)
    house.data.plane.backends.say(found, clock.monotonic_us())


def test_a_backend_that_says_it_is_full_is_avoided(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as full,
            ScriptedBackend() as idle,
            open_house(tmp_path, store_url) as house,
        ):
            full.metrics, idle.metrics = FULL, IDLE
            world = await furnish(
                house, OWN | {"base_url": full.base_url}, OWN | {"base_url": idle.base_url}
            )
            for _ in range(6):  # both are known to the worker
                await house.ask(world.secret, model="chat", messages=HELLO)
            full.book.clear()
            lookout = Lookout()
            deps = looking(house, lookout)
            await look_at_engines.run(deps, asyncio.Event())
            await heard(house)
            await asyncio.sleep(0.3)  # as old as what is seen live may be
            for _ in range(8):
                answer = await house.ask(world.secret, model="chat", messages=HELLO)
                assert answer.status_code == 200
            assert full.book == []

            (asked,) = full.looked_at
            assert "authorization" not in asked
            assert not any("secret" in value for value in asked.values())
            await lookout.close()

    run(scenario())


def test_only_engines_of_ones_own_are_asked_and_the_silent_not_again_soon(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as cloud,
            ScriptedBackend() as trusted,
            ScriptedBackend() as dumb,
            open_house(tmp_path, store_url) as house,
        ):
            cloud.metrics = trusted.metrics = FULL
            away = {"base_url": "http://127.0.0.1:9/v1", "placement": "edge"}
            world = await furnish(
                house,
                {"base_url": cloud.base_url, "placement": "cloud"},
                {"base_url": trusted.base_url, "placement": "cloud", "trusted": True},
                {"base_url": dumb.base_url, "placement": "on_prem"},
                away,
            )
            lookout = Lookout()
            deps = looking(house, lookout)
            for _ in range(3):
                await look_at_engines.run(deps, asyncio.Event())
            assert [len(each.looked_at) for each in (cloud, trusted, dumb)] == [0, 3, 1]
            assert dumb.book == []
            found = await engines.read(house.data.channels)
            assert list(found) == [world.backends[1]["id"]]
            lives_ms = int(await house.data.channels.house.ask("PTTL", engines.KEY))
            assert 0 < lives_ms <= engines.LIFE_MS
            silent = [world.backends[2]["id"], world.backends[3]["id"]]
            assert sorted(deps.unasked) == sorted(silent)
            await lookout.close()

    run(scenario())


def test_a_page_without_end_is_given_up(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as endless, open_house(tmp_path, store_url) as house:
            endless.metrics = b"# padding\n" * 400_000 + FULL
            await furnish(house, OWN | {"base_url": endless.base_url})
            lookout = Lookout()
            await look_at_engines.run(looking(house, lookout), asyncio.Event())
            assert len(endless.looked_at) == 1
            assert await engines.read(house.data.channels) == {}
            await lookout.close()

    run(scenario())


def test_what_a_worker_hears_stands_in_the_decision(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            backend.metrics, backend.script = FULL, Script(tokens=2)
            world = await furnish(house, OWN | {"base_url": backend.base_url})
            await house.ask(world.secret, model="chat", messages=HELLO)
            lookout = Lookout()
            await look_at_engines.run(looking(house, lookout), asyncio.Event())
            sharer = asyncio.create_task(
                sharing.keep_sharing(
                    house.data.channels, "x", house.data.plane.backends, every_s=0.01
                )
            )
            key = (world.backends[0]["id"], "m")
            while house.data.plane.backends.live(clock.monotonic_us())[key].waiting != 9:
                await asyncio.sleep(0.01)
            sharer.cancel()
            await asyncio.gather(sharer, return_exceptions=True)
            answer = await house.ask(world.secret, model="chat", messages=HELLO)
            assert answer.status_code == 200, "full, but there is no other"
            await lookout.close()

    run(scenario())
