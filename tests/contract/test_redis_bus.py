"""The bus: a change is heard at once, and a listener that lost its connection is told to look."""

import asyncio

from gateway.stores.redis import bus, keys
from tests import servers
from tests.holding import open_reader
from tests.running import run


def test_a_published_revision_reaches_every_listener(any_store_url: str) -> None:
    async def story() -> None:
        async with open_reader(any_store_url) as one, open_reader(any_store_url) as two:
            heard: list[asyncio.Queue[int]] = [asyncio.Queue(), asyncio.Queue()]
            listening = [
                asyncio.create_task(bus.listen(client, queue.put_nowait))
                for client, queue in zip((one, two), heard, strict=True)
            ]
            assert [await queue.get() for queue in heard] == [0, 0]  # subscribed
            await one.publish(keys.CONFIG_CHANNEL, "noise")
            await bus.publish(one, 42)
            assert [await queue.get() for queue in heard] == [42, 42]
            for task in listening:
                task.cancel()
            await asyncio.gather(*listening, return_exceptions=True)

    run(story())


def test_a_listener_survives_the_store_and_is_told_to_look_when_it_is_back() -> None:
    async def story(server: servers.StoreServer) -> None:
        async with open_reader(server.url) as client, open_reader(server.url) as other:
            heard: asyncio.Queue[int] = asyncio.Queue()
            listening = asyncio.create_task(bus.listen(client, heard.put_nowait))
            assert await heard.get() == 0
            server.kill()
            await bus.publish(other, 1)  # nobody to tell, and no error
            server.start()
            assert await heard.get() == 0
            await bus.publish(other, 2)
            assert await heard.get() == 2
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    with servers.store_server(servers.valkey_binary()) as server:
        run(story(server))
