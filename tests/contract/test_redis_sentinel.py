"""A service behind Sentinel as the store: its master is found, and found again after a switch."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

import pytest
from redis.asyncio import Redis
from redis.asyncio.sentinel import SentinelConnectionPool

from gateway.stores.redis import address, bus, keys, leases
from gateway.stores.redis.channel import Channels
from gateway.stores.redis.holds import Granted, HoldStore, Settlement, StoreUnavailable
from gateway.stores.redis.journal import Journal
from tests import clusters
from tests.holding import TAG, account, ask, books, open_holds, open_reader
from tests.running import run

SWITCH_WITHIN_S = 90.0


@pytest.fixture(scope="module")
def service() -> Iterator[clusters.Service]:
    with clusters.sentinel_service() as found:
        yield found


def test_the_master_that_the_sentinels_name_is_used(service: clusters.Service) -> None:
    async def story(holds: HoldStore, client: Redis) -> None:
        service.master().ask("FLUSHALL")
        await make_whole(holds)
        one = ask(accounts=(account(10_000),))
        assert isinstance(await holds.admit(TAG, one), Granted)
        assert await holds.settle(TAG, Settlement(one.hold_id, 7, 1, event=b"e"))
        assert await books(client) == (7, 0)
        assert [entry.event for entry in await Journal(client, TAG, "job").take(10)] == [b"e"]
        heard: asyncio.Queue[int] = asyncio.Queue()
        listening = asyncio.create_task(bus.listen(address.parse(service.url), heard.put_nowait))
        assert await heard.get() == 0
        await bus.publish(holds.channels, 3)
        assert await heard.get() == 3
        listening.cancel()

    _with(service, story)


def test_a_wrong_name_or_password_is_no_connection(service: clusters.Service) -> None:
    async def story() -> None:
        for url in (service.url.replace("/house", "/other"), service.url.replace(":test@", ":x@")):
            channels = Channels(address.parse(url))
            with pytest.raises(StoreUnavailable, match="no connection"):
                await channels.open(0.5)
            await channels.close()

    run(story())


def test_a_master_that_hangs_is_left_for_the_one_that_took_its_place(
    service: clusters.Service, figure: Callable[[str], None]
) -> None:
    async def story(holds: HoldStore, _: Redis) -> None:
        await make_whole(holds)
        one = ask(accounts=(account(10_000, "kept"),))
        assert isinstance(await holds.admit(TAG, one), Granted)
        old = service.master()
        await _copied(old)
        old.freeze()
        began = time.monotonic()
        try:
            # Nobody closes this connection: the answer would come when the old master wakes up.
            waiting = asyncio.create_task(holds.settle(TAG, Settlement(one.hold_id, 7, 1)))
            with pytest.raises(StoreUnavailable):
                await waiting
            await _connected(holds)
            with pytest.raises(StoreUnavailable, match="EPOCH"):  # its copy may be behind
                await holds.admit(TAG, ask())
            await make_whole(holds, 2)
            await holds.admit(TAG, ask())
            figure(
                f"master frozen, 2 replicas, 3 sentinels: the new one is connected after "
                f"{time.monotonic() - began:.1f} s (down after 1 s)"
            )
            assert service.master() is not old
            assert await holds.settle(TAG, Settlement(one.hold_id, 7, 1))
            async with open_reader(service.url) as anew:
                assert await books(anew, "kept") == (7, 0)
                assert await leases.take(anew, keys.drain(TAG), 1_000) is not None
        finally:
            old.thaw()
        # It wakes up, still believing that it is master, and is not asked any more.
        again = ask(accounts=(account(10_000, "kept"),))
        assert isinstance(await holds.admit(TAG, again), Granted)
        assert await holds.settle(TAG, Settlement(again.hold_id, 7, 1))
        async with open_reader(service.url) as anew:
            assert await books(anew, "kept") == (14, 0)

    _with(service, story)


def test_a_sentinel_that_is_down_is_not_forgotten_by_two_who_pass_it_at_once(
    service: clusters.Service,
) -> None:
    down = clusters.free_port()
    url = service.url.replace("@", f"@127.0.0.1:{down},")

    async def story() -> list[int]:
        async with open_reader(url) as client:
            await asyncio.gather(*(client.ping() for _ in range(5)))
            pool = cast("SentinelConnectionPool", client.connection_pool)
            asked = pool.sentinel_manager.sentinels
            return [one.connection_pool.connection_kwargs["port"] for one in asked]

    asked = run(story())
    assert sorted(asked) == sorted([down, *(each.port for each in service.sentinels)])
    assert asked[0] != down  # who answered is asked first the next time


async def _copied(master: clusters.Member) -> None:
    """Every replica has what the master has."""
    assert await asyncio.to_thread(master.ask, "WAIT", 2, 1_500) == 2


async def make_whole(holds: HoldStore, number: int = 1) -> None:
    """As if the counters had been rebuilt in the process that has them now."""
    channel = holds.channels.of(TAG)
    await channel.ask("SET", keys.epoch(TAG), f"open:{number}:0:{channel.run_id}")


async def _connected(holds: HoldStore) -> None:
    async with asyncio.timeout(SWITCH_WITHIN_S):
        while True:
            with contextlib.suppress(StoreUnavailable):
                await holds.channels.of(TAG).ask("PING")
                return
            await asyncio.sleep(0.02)


def _with(service: clusters.Service, story: Callable[[HoldStore, Redis], Awaitable[None]]) -> None:
    async def opened() -> None:
        async with open_holds(service.url) as holds, open_reader(service.url) as client:
            await story(holds, client)

    run(opened())
