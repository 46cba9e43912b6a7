"""The pipelined connection: order, greetings, loss, and servers that talk nonsense."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import hiredis
import msgspec
import pytest
import uvloop

from gateway.stores.redis import address
from gateway.stores.redis.address import StoreAddress
from gateway.stores.redis.channel import Channel, StoreUnavailable
from tests import servers
from tests.running import run

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
Loop = Callable[[], asyncio.AbstractEventLoop]


@pytest.mark.parametrize("loop", LOOPS)
def test_replies_come_back_to_those_who_asked(store_url: str, loop: Loop) -> None:
    async def story() -> None:
        channel = Channel(address.parse(store_url))
        await channel.open()
        words = [f"word {n}" for n in range(500)]
        answers = await asyncio.gather(*(channel.call("ECHO", word) for word in words))
        assert [answer.decode() for answer in answers] == words
        with pytest.raises(hiredis.ReplyError, match="unknown command"):
            await channel.call("NONSENSE")
        assert await channel.call("GET", "absent") is None
        assert channel.waiting == 0
        await channel.close()
        with pytest.raises(StoreUnavailable, match="not connected"):
            await channel.call("PING")

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(story())


def test_a_cancelled_call_does_not_upset_its_neighbours(store_url: str) -> None:
    async def story() -> None:
        channel = Channel(address.parse(store_url))
        await channel.open()
        calls = [asyncio.create_task(channel.call("ECHO", str(n))) for n in range(100)]
        await asyncio.sleep(0)
        for call in calls[::3]:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for n, answer in enumerate(answers):
            if n % 3:
                assert answer == str(n).encode()
            else:
                assert isinstance(answer, asyncio.CancelledError)
        await channel.close()

    run(story())


def test_the_password_and_the_database_of_the_url_are_used() -> None:
    async def story(url: str) -> None:
        where = address.parse(f"{url}?db=3")
        channel = Channel(msgspec.structs.replace(where, password="letmein"))
        await channel.open()
        await channel.call("SET", "here", "yes")
        assert b"db=3" in await channel.call("CLIENT", "INFO")
        await channel.close()
        wrong = Channel(msgspec.structs.replace(where, password="guess"))
        with pytest.raises(StoreUnavailable):
            await wrong.open(within_s=0.2)
        await wrong.close()

    # The launcher's own PING is answered with -NOAUTH, so it is told the password late.
    with servers.store_server(servers.valkey_binary()) as server:

        async def lock() -> None:
            channel = Channel(address.parse(server.url))
            await channel.open()
            await channel.call("CONFIG", "SET", "requirepass", "letmein")
            await channel.close()

        run(lock())
        run(story(server.url))


def test_a_store_that_comes_late_is_found() -> None:
    async def story(server: servers.StoreServer) -> None:
        ready = asyncio.Event()
        channel = Channel(address.parse(server.url), on_up=ready.set)
        server.kill()
        with pytest.raises(StoreUnavailable, match=r"within 0\.05 s"):
            await channel.open(within_s=0.05)
        await asyncio.to_thread(server.start)
        await ready.wait()
        assert await channel.call("PING") == b"PONG"
        await channel.close()

    with servers.store_server(servers.valkey_binary()) as server:
        run(story(server))


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+PONG\r\n+PONG\r\n", b""]
)
def test_a_peer_that_talks_nonsense_is_left_and_its_callers_are_told(
    tmp_path: Path, answer: bytes
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    async def story() -> None:
        path = tmp_path / "s"
        server = await asyncio.start_unix_server(talk, str(path))
        channel = Channel(StoreAddress(path=str(path)))
        try:
            await channel.open(within_s=0.3)
            with pytest.raises(StoreUnavailable):
                await channel.call("PING")
        except StoreUnavailable:
            pass
        await channel.close()
        server.close()

    run(story())


def test_a_peer_that_accepts_and_says_nothing_does_not_hang_the_opening(tmp_path: Path) -> None:
    async def story() -> None:
        hold = asyncio.Event()

        async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hold.wait()
            writer.close()

        server = await asyncio.start_unix_server(silent, str(tmp_path / "s"))
        channel = Channel(StoreAddress(path=str(tmp_path / "s")))
        with pytest.raises(StoreUnavailable):
            await channel.open(within_s=0.1)
        await channel.close()
        hold.set()
        server.close()

    run(story())


def test_tcp_works_as_well_as_a_socket_file() -> None:
    async def story(unix_url: str) -> None:
        first = Channel(address.parse(unix_url))
        await first.open()
        for port in range(20_000, 20_100):
            try:
                await first.call("CONFIG", "SET", "port", port)
                break
            except hiredis.ReplyError:
                continue
        second = Channel(address.parse(f"redis://127.0.0.1:{port}"))
        await second.open()
        assert await second.call("PING") == b"PONG"
        await first.close()
        await second.close()

    with servers.valkey() as url:
        run(story(url))
