"""Ranking in a whole gateway: a backend that slows down and one that dies, in steady traffic."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway import clock
from gateway.backends.health import FAILED
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]
PER_SECOND = 30.0
QUICK = Script(tokens=4, delay_ms=60)
SLOW = Script(tokens=4, delay_ms=300)

pytestmark = pytest.mark.long


@contextlib.asynccontextmanager
async def steady(house: House, world: World) -> AsyncIterator[list[int]]:
    """Streams begun at a steady pace; the statuses of those that have ended."""
    statuses: list[int] = []

    async def one() -> None:
        answer = await house.ask(world.secret, model="chat", messages=HELLO, stream=True)
        statuses.append(answer.status_code)

    async def pace() -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(one())
                await asyncio.sleep(1 / PER_SECOND)

    pacing = asyncio.create_task(pace())
    try:
        yield statuses
    finally:
        pacing.cancel()
        await asyncio.gather(pacing, return_exceptions=True)


async def shares(backends: list[ScriptedBackend], seconds: float) -> list[float]:
    """Per cent of what arrives at each in this time."""
    before = [len(each.book) for each in backends]
    await asyncio.sleep(seconds)
    came = [len(each.book) - had for each, had in zip(backends, before, strict=True)]
    return [100 * each / sum(came) for each in came]


def test_traffic_leaves_a_backend_that_is_five_times_as_slow_within_twenty_seconds(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as one,
            ScriptedBackend() as two,
            ScriptedBackend() as three,
            open_house(tmp_path, store_url) as house,
        ):
            fleet = [one, two, three]
            for each in fleet:
                each.script = QUICK
            world = await furnish(house, *({"base_url": each.base_url} for each in fleet))
            await house.policy(
                name="soon", scope={"tenant": world.tenant["id"]}, slo={"ttft_p95_ms": 200}
            )
            await house.in_force()
            async with steady(house, world) as statuses:
                await asyncio.sleep(2)
                before = await shares(fleet, 6)
                one.script = SLOW
                during = await shares(fleet, 20)
                after = await shares(fleet, 6)
            figure(
                f"% at the slow one: {before[0]:.1f} before, {during[0]:.1f} in the 20 s after"
                f" the shift, {after[0]:.1f} then; {len(statuses)} streams"
            )
            assert before[0] > 20
            assert after[0] < 5
            assert set(statuses) == {200}

    run(scenario())


def test_a_backend_that_dies_takes_next_to_nothing_and_is_back_within_fifteen_seconds(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as mortal,
            ScriptedBackend() as other,
            open_house(tmp_path, store_url) as house,
        ):
            fleet = [mortal, other]
            for each in fleet:
                each.script = QUICK
            world = await furnish(house, *({"base_url": each.base_url} for each in fleet))
            seat = house.data.plane.backends.seats
            key = (world.backends[0]["id"], "m")

            def tried_in_vain() -> int:
                return seat()[key].outcomes.counts(clock.monotonic_us()).get(FAILED, 0)

            async with steady(house, world) as statuses:
                await asyncio.sleep(4)
                port = mortal.port
                await mortal.stop()
                await asyncio.sleep(2)
                had, asked = tried_in_vain(), len(other.book)
                await asyncio.sleep(24)
                vain, asked = tried_in_vain() - had, len(other.book) - asked
                await mortal.start(port)
                healed_us, known = clock.monotonic_us(), len(mortal.book)
                while len(mortal.book) == known:
                    await asyncio.sleep(0.01)
                first_s = (clock.monotonic_us() - healed_us) / 1e6
                await asyncio.sleep(max(0.0, 15 - first_s))
                back = await shares(fleet, 4)
            figure(
                f"{vain} of {asked} requests were tried there after 2 s; first served"
                f" {first_s:.1f} s after healing, {back[0]:.0f} % of traffic after 15 s;"
                f" answered: {statuses.count(200)} of {len(statuses)}"
            )
            assert vain < asked / 100
            assert first_s < 15
            assert back[0] > 20
            cut = len(statuses) - statuses.count(200)
            assert cut <= 12, "only what was under way when it died"

    run(scenario())
