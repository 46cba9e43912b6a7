"""What workers tell each other of their backends, over a real store."""

import asyncio
from pathlib import Path

from gateway import clock
from gateway.backends.health import Backends, Outcome
from gateway.dataplane.sharing import keep_sharing, own
from gateway.stores.redis import address, rings
from gateway.stores.redis.channel import Channels
from policies.latency import MIN_SAMPLES
from tests.running import run

KEY = ("bk_1", "m")


def measured(backends: Backends, requests: int = MIN_SAMPLES) -> None:
    for _ in range(requests):
        now_us = clock.monotonic_us()
        flight = backends.began(*KEY, 1, now_us - 300_000)
        flight.first_byte(now_us)
        flight.ended(Outcome.SERVED, now_us)


def test_workers_hear_each_other_and_one_that_ends_is_gone(store_url: str) -> None:
    async def scenario() -> None:
        channels = Channels(address.parse(store_url))
        await channels.open()
        here, there = Backends(), Backends()
        measured(there)
        tasks = [
            asyncio.create_task(keep_sharing(channels, name, backends, every_s=0.02))
            for name, backends in (("a", here), ("b", there))
        ]
        try:
            while (
                KEY not in here.seats()
                or here.seats()[KEY].ttft.samples(clock.monotonic_us()) < MIN_SAMPLES
            ):
                await asyncio.sleep(0.01)
            assert 0 < int(await channels.house.ask("PTTL", rings.KEY)) <= rings.LIFE_MS
            assert here.live(clock.monotonic_us())[KEY].ttft_p95_us is not None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await channels.house.ask("EXISTS", rings.KEY) == 0
        await channels.close()

    run(scenario())


def test_the_silent_and_the_unreadable_are_passed_over(store_url: str) -> None:
    async def scenario() -> None:
        channels = Channels(address.parse(store_url))
        await channels.open()
        there, now_us = Backends(), clock.now_us()
        measured(there, 1)
        old_us = now_us - rings.STALE_AFTER_US - 1
        await rings.exchange(channels, own(there, "old", clock.monotonic_us(), old_us))
        await channels.house.ask("HSET", rings.KEY, "odd", b"\xc1")

        heard = await rings.exchange(channels, own(there, "b", clock.monotonic_us(), now_us))
        assert heard == []
        assert sorted(await channels.house.ask("HKEYS", rings.KEY)) == [b"b", b"old"]
        heard = await rings.exchange(channels, own(there, "a", clock.monotonic_us(), now_us))
        assert [each.worker for each in heard] == ["b"]
        await channels.close()

    run(scenario())


def test_without_a_store_a_worker_goes_on_by_what_it_sees_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        channels = Channels(address.parse(f"unix://{tmp_path}/none.sock"))
        backends = Backends()
        measured(backends)
        task = asyncio.create_task(keep_sharing(channels, "a", backends, every_s=0.001))
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not task.done()
        assert backends.live(clock.monotonic_us())[KEY].samples == MIN_SAMPLES
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(scenario())
