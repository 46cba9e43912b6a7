"""The fault proxy does to a connection what it was told, and nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fault_proxy import FaultProxy, Strike
from tests.running import run


class Echo:
    """Sends every line back; remembers them all, and how its connections ended."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.ends: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.lines.append(line)
                writer.write(line)
                await writer.drain()
            self.ends.append("end")
            writer.write(b"bye\n")
        except OSError:
            self.ends.append("reset")
        finally:
            writer.close()


Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Story = Callable[[Echo, FaultProxy, Callable[[], Awaitable[Client]]], Awaitable[None]]


@asynccontextmanager
async def clients(proxy: FaultProxy) -> AsyncIterator[Callable[[], Awaitable[Client]]]:
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> Client:
        address = proxy.address
        if isinstance(address, Path):
            pair = await asyncio.open_unix_connection(address)
        else:
            pair = await asyncio.open_connection(*address)
        opened.append(pair[1])
        return pair

    try:
        yield connect
    finally:
        for writer in opened:
            writer.transport.abort()
        await asyncio.sleep(0)


def play(story: Story, target: Path | None = None, listen: Path | None = None) -> None:
    async def whole() -> None:
        echo = Echo()
        if target is None:
            server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()[:2]
        else:
            server = await asyncio.start_unix_server(echo.serve, target)
            address = target
        async with FaultProxy(address, listen) as proxy, clients(proxy) as connect:
            await story(echo, proxy, connect)
        server.close()
        await asyncio.sleep(0.01)

    run(whole())


async def said(client: Client, line: bytes) -> bytes:
    """The answer to a line; empty at the end of the connection."""
    reader, writer = client
    writer.write(line + b"\n")
    return await reader.readline()


@pytest.mark.parametrize("unix", [False, True])
def test_without_a_fault_every_byte_passes_both_ways(unix: bool, tmp_path: Path) -> None:
    async def story(
        echo: Echo, proxy: FaultProxy, connect: Callable[[], Awaitable[Client]]
    ) -> None:
        client = await connect()
        assert await said(client, b"x" * 50_000) == b"x" * 50_000 + b"\n"
        client[1].write_eof()
        assert await client[0].read() == b"bye\n"
        assert echo.ends == ["end"]

    play(story, *((tmp_path / "a", tmp_path / "b") if unix else (None, None)))


def test_a_lost_request_never_arrives_and_the_client_sees_a_reset() -> None:
    async def story(
        echo: Echo, proxy: FaultProxy, connect: Callable[[], Awaitable[Client]]
    ) -> None:
        strike = proxy.strike(Strike("request_lost", match=b"two"))
        client, other = await connect(), await connect()
        assert await said(client, b"one") == b"one\n"
        with pytest.raises(ConnectionResetError):
            await said(client, b"two")
        assert strike.done.is_set()
        assert await said(other, b"two") == b"two\n", "it happens once"
        assert echo.lines == [b"one\n", b"two\n"]

    play(story)


def test_of_a_lost_reply_the_request_has_arrived() -> None:
    async def story(
        echo: Echo, proxy: FaultProxy, connect: Callable[[], Awaitable[Client]]
    ) -> None:
        happened: list[list[bytes]] = []
        proxy.strike(
            Strike("reply_lost", match=b"two", on_done=lambda: happened.append(list(echo.lines)))
        )
        client = await connect()
        assert await said(client, b"one") == b"one\n"
        with pytest.raises(ConnectionResetError):
            await said(client, b"two")
        assert happened == [[b"one\n", b"two\n"]]

    play(story)


def test_the_nth_match_is_struck_also_when_it_comes_in_pieces() -> None:
    async def story(
        echo: Echo, proxy: FaultProxy, connect: Callable[[], Awaitable[Client]]
    ) -> None:
        strike = proxy.strike(Strike("drop", match=b"stop", nth=2))
        client = await connect()
        assert await said(client, b"stop") == b"stop\n"
        client[1].write(b"st")
        await client[1].drain()
        await asyncio.sleep(0.02)
        client[1].write(b"op")
        await strike.done.wait()
        assert await said(client, b"ay") == b"stay\n", "only the bytes that completed it vanish"

    play(story)


def test_a_connection_is_reset_after_so_many_bytes_of_an_answer() -> None:
    async def story(
        echo: Echo, proxy: FaultProxy, connect: Callable[[], Awaitable[Client]]
    ) -> None:
        proxy.strike(Strike("reset", towards="client", after_bytes=3, connection=2))
        first, second = await connect(), await connect()
        assert await said(first, b"hello") == b"hello\n"
        second[1].write(b"hello\n")
        got = b""
        try:
            while piece := await second[0].read(100):
                got += piece
        except ConnectionResetError:
            pass
        assert b"hello\n".startswith(got)
        assert len(got) <= 3

    play(story)


def test_a_half_closed_connection_still_carries_the_other_way() -> None:
    async def story(
        echo: Echo, proxy: FaultProxy, connect: Callable[[], Awaitable[Client]]
    ) -> None:
        client = await connect()
        assert await said(client, b"one") == b"one\n"
        proxy.half_close("server")
        assert await client[0].read() == b"bye\n"
        assert echo.ends == ["end"]

    play(story)


def test_in_a_blackhole_nothing_passes_and_nobody_is_told() -> None:
    async def story(
        echo: Echo, proxy: FaultProxy, connect: Callable[[], Awaitable[Client]]
    ) -> None:
        strike = proxy.strike(Strike("blackhole", match=b"two"))
        client = await connect()
        assert await said(client, b"one") == b"one\n"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await said(client, b"two")
        assert strike.done.is_set()
        assert (echo.lines, echo.ends) == ([b"one\n"], [])

        proxy.blackhole = True
        late = await connect()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await said(late, b"three")
        proxy.calm()
        assert await late[0].readline() == b"three\n"

    play(story)


def test_bytes_can_be_held_back_and_let_go() -> None:
    async def story(
        echo: Echo, proxy: FaultProxy, connect: Callable[[], Awaitable[Client]]
    ) -> None:
        strike = proxy.strike(Strike("hold", towards="client", match=b"one"))
        client = await connect()
        asking = asyncio.create_task(said(client, b"one"))
        await strike.done.wait()
        assert echo.lines == [b"one\n"]
        assert not asking.done()
        strike.release.set()
        assert await asking == b"one\n"

    play(story)


def test_a_slow_line_is_slow_and_a_closed_one_resets() -> None:
    async def story(
        echo: Echo, proxy: FaultProxy, connect: Callable[[], Awaitable[Client]]
    ) -> None:
        client = await connect()
        proxy.delay_ms = 50
        began = time.monotonic()
        assert await said(client, b"one") == b"one\n"
        assert time.monotonic() - began >= 0.1, "there and back"
        proxy.delay_ms, proxy.bytes_per_s = 0, 5_000
        began = time.monotonic()
        await said(client, b"x" * 500)
        assert time.monotonic() - began >= 0.1
        proxy.refuse = True
        with pytest.raises(ConnectionResetError):
            await said(await connect(), b"one")

    play(story)
