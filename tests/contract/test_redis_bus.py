"""The bus: a change is heard at once, and a listener that lost its connection is told to look."""

import asyncio

from gateway.stores.redis import address, bus, keys
from tests import servers
from tests.holding import open_channels
from tests.running import run


def test_a_published_revision_reaches_every_listener(any_store_url: str) -> None:
    async def story() -> None:
        async with open_channels(any_store_url) as channels:
            heard: list[asyncio.Queue[int]] = [asyncio.Queue(), asyncio.Queue()]
            listening = [
                asyncio.create_task(bus.listen(address.parse(any_store_url), queue.put_nowait))
                for queue in heard
            ]
            assert [await queue.get() for queue in heard] == [0, 0]  # subscribed
            await channels.house.call("PUBLISH", keys.CONFIG_CHANNEL, "noise")
            await bus.publish(channels, 42)
            assert [await queue.get() for queue in heard] == [42, 42]
            for task in listening:
                task.cancel()
            await asyncio.gather(*listening, return_exceptions=True)

    run(story())


def test_a_listener_survives_the_store_and_is_told_to_look_when_it_is_back() -> None:
    async def story(server: servers.StoreServer) -> None:
        async with open_channels(server.url) as channels:
            heard: asyncio.Queue[int] = asyncio.Queue()
            listening = asyncio.create_task(bus.listen(address.parse(server.url), heard.put_nowait))
            assert await heard.get() == 0
            server.kill()
            await bus.publish(channels, 1)  # nobody to tell, and no error
            server.start()
            assert await heard.get() == 0
            await channels.open()
            await bus.publish(channels, 2)
            assert await heard.get() == 2
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    with servers.store_server(servers.valkey_binary()) as server:
        run(story(server))
