"""Pieces of an answer written at once are those that `send` would have written."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from gateway.app.server import Application, server_config
from gateway.dataplane.outlet import EXTENSION, at_once
from tests.loops import ON_BOTH_LOOPS, LoopFactory, run_on, until

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]}
ASKED = b"POST /door HTTP/1.1\r\nhost: gateway\r\ncontent-length: 0\r\n\r\n"


def piece(body: bytes, *, more: bool = True) -> Any:
    return {"type": "http.response.body", "body": body, "more_body": more}


@contextlib.asynccontextmanager
async def door(behind: Any) -> AsyncIterator[tuple[str, int]]:
    """A listener of ours with one door."""
    app = Application([], doors={b"/door": behind}, openapi_config=None, logging_config=None)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(server_config(app, 5))
    serving = asyncio.create_task(server._serve(sockets=[listener]))
    await until(lambda: server.started)
    try:
        yield listener.getsockname()[:2]
    finally:
        server.should_exit = True
        await serving


@ON_BOTH_LOOPS
def test_a_piece_written_at_once_is_on_the_wire_as_if_it_had_been_sent(
    loop_factory: LoopFactory,
) -> None:
    bodies = [b"a", b"data: x\n\n" * 3, b"z" * 70_000]

    async def story() -> None:
        async def sends(_scope: Any, _receive: Any, send: Any) -> None:
            await send(HEAD)
            for body in bodies:
                await send(piece(body))
            await send(piece(b"end", more=False))

        async def writes(scope: Any, _receive: Any, send: Any) -> None:
            write = at_once(scope)
            await send(HEAD)
            for body in bodies:
                if not write(body):
                    await send(piece(body))
            await send(piece(b"end", more=False))

        said = []
        for way in (sends, writes):
            async with door(way) as where:
                reader, writer = await asyncio.open_connection(*where, limit=1 << 20)
                for _ in range(2):  # the connection is kept
                    writer.write(ASKED)
                    said.append(await reader.readuntil(b"end\r\n0\r\n\r\n"))
                writer.close()
                await writer.wait_closed()
        assert len(set(said)) == 1

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_client_that_is_behind_takes_nothing_at_once_until_it_has_read(
    loop_factory: LoopFactory,
) -> None:
    async def story() -> None:
        refused_after = 0

        async def writes(scope: Any, _receive: Any, send: Any) -> None:
            nonlocal refused_after
            write = at_once(scope)
            await send(HEAD)
            while write(b"." * 10_000):
                refused_after += 10_000
            await send(piece(b"waited for"))
            assert write(b"at once")
            await send(piece(b"end", more=False))

        async with door(writes) as where:
            reader, writer = await asyncio.open_connection(*where)
            writer.write(ASKED)
            await until(lambda: refused_after > 0)
            said = b""
            while not said.endswith(b"end\r\n0\r\n\r\n"):
                said += await reader.read(65_536)
            assert b"waited for\r\n7\r\nat once" in said
            assert refused_after < 20_000_000  # what the two kernels hold, and 64 KiB
            writer.close()
            await writer.wait_closed()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_a_client_that_is_gone_takes_everything_in_silence(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        ended = asyncio.Event()

        async def writes(scope: Any, receive: Any, send: Any) -> None:
            write = at_once(scope)
            await send(HEAD)
            await receive()
            while (await receive())["type"] != "http.disconnect":
                pass
            assert all(write(b"." * 10_000) for _ in range(100))
            ended.set()

        async with door(writes) as where:
            _, writer = await asyncio.open_connection(*where)
            writer.write(ASKED)
            writer.close()
            await writer.wait_closed()
            await ended.wait()

    run_on(loop_factory, story())


@ON_BOTH_LOOPS
def test_no_piece_is_written_outside_of_an_answer(loop_factory: LoopFactory) -> None:
    async def story() -> None:
        refusals = []

        async def writes(scope: Any, _receive: Any, send: Any) -> None:
            write = at_once(scope)

            def refuses(body: bytes) -> None:
                with pytest.raises(RuntimeError, match="outside"):
                    write(body)
                refusals.append(body)

            refuses(b"before the head")
            await send(HEAD)
            refuses(b"")  # it would be the end of the answer
            await send(piece(b"end", more=False))
            refuses(b"after the end")

        async with door(writes) as where:
            reader, writer = await asyncio.open_connection(*where)
            writer.write(ASKED)
            assert (await reader.readuntil(b"end\r\n0\r\n\r\n")).count(b"HTTP/1.1") == 1
            await until(lambda: len(refusals) == 3)
            writer.close()
            await writer.wait_closed()

    run_on(loop_factory, story())


def test_a_server_that_offers_nothing_takes_nothing() -> None:
    scopes: list[Any] = [{}, {"extensions": None}, {"extensions": {"http.response.trailers": {}}}]

    assert [at_once(scope)(b"piece") for scope in scopes] == [False, False, False]
    assert EXTENSION.startswith("meterhouse.")
