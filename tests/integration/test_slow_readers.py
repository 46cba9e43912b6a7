"""Clients that take their answer slowly, or not at all, and connections that ask nothing."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from gateway.app.data import data_app
from gateway.app.inbound import LEAST_TAKEN_BYTES, Inbound
from gateway.app.server import server_config
from tests.house import House, World, furnish, open_house
from tests.loops import run_on, until
from tests.scripted_backend import ScriptedBackend

FAST = {"tokens": 4_000, "event_padding_bytes": 10_000}  # 40 MB in all
MOST_UNDER_WAY_TOKENS = 2_000  # what all the buffers on the way may hold, the kernel's included


class Impatient(Inbound):
    blocked_seconds = 0.5


@contextlib.asynccontextmanager
async def impatient(house: House, **options: Any) -> AsyncIterator[tuple[str, int]]:
    """The house's data plane behind another door: one with little patience."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 64 * 1024)
    config = server_config(data_app(house.data, asyncio.Event()), 5)
    config.http = Impatient
    for name, value in options.items():
        setattr(config, name, value)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve(sockets=[listener]))
    await until(lambda: server.started)
    try:
        yield listener.getsockname()[:2]
    finally:
        server.should_exit = True
        await serving


async def _asked(where: tuple[str, int], key: str, script: dict[str, Any]) -> socket.socket:
    """A connection with a small buffer, on which a stream was asked for and nothing is read."""
    messages = [{"role": "user", "content": f"script:{json.dumps(script)}"}]
    body = {"model": "chat", "messages": messages, "stream": True, "max_tokens": 4_000}
    packed = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(packed)}\r\n\r\n"
    )
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, where)
    await loop.sock_sendall(client, head.encode() + packed)
    return client


async def _furnished(house: House, backend: ScriptedBackend) -> World:
    world = await furnish(house, {"base_url": backend.base_url})
    await house.make("budgets", scope={"key": world.key["id"]}, amount="100", period="month")
    await house.in_force()
    return world


async def _held(house: House) -> str:
    (budget,) = (await house.look("budgets"))["items"]
    return str(budget["held"])


def test_a_client_that_stops_reading_pauses_its_backend_and_is_given_up(
    tmp_path: Path, store_url: str
) -> None:
    async def story() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url) as house,
            impatient(house) as where,
        ):
            world = await _furnished(house, backend)
            with await _asked(where, world.secret, FAST):
                await until(lambda: bool(backend.book and house.data.plane.in_flight))
                assert await _held(house) != "0"
                await until(lambda: backend.book[0].client_disconnected)
                assert not backend.book[0].finished
                assert backend.book[0].generated_tokens < MOST_UNDER_WAY_TOKENS
                await house.settled()
                assert await _held(house) == "0"
                assert not backend.connections

    run_on(uvloop.new_event_loop, story())


def test_a_client_that_reads_slowly_gets_everything(tmp_path: Path, store_url: str) -> None:
    async def story() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url) as house,
            impatient(house) as where,
        ):
            world = await _furnished(house, backend)
            loop = asyncio.get_running_loop()
            with await _asked(where, world.secret, FAST | {"tokens": 300}) as client:
                received = 0
                end = b""
                while not end.endswith(b"0\r\n\r\n"):
                    await asyncio.sleep(0.05)  # it is slow, not gone
                    piece = await loop.sock_recv(client, 4 * LEAST_TAKEN_BYTES)
                    assert piece, "it was given up"
                    received += len(piece)
                    end = (end + piece)[-64:]
                assert received > 300 * FAST["event_padding_bytes"]
                assert b"[DONE]" in end
            await house.settled()
            assert backend.book[0].finished

    run_on(uvloop.new_event_loop, story())


def test_a_connection_that_never_asks_is_closed(tmp_path: Path, store_url: str) -> None:
    async def story() -> None:
        async with (
            open_house(tmp_path, store_url) as house,
            impatient(house, timeout_keep_alive=0.2) as where,
        ):
            reader, writer = await asyncio.open_connection(*where)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    run_on(uvloop.new_event_loop, story())


def test_a_client_that_leaves_while_it_is_blocked_leaves_nothing_behind(
    tmp_path: Path, store_url: str
) -> None:
    async def story() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url) as house,
            impatient(house) as where,
        ):
            world = await _furnished(house, backend)
            clients = [await _asked(where, world.secret, FAST) for _ in range(20)]
            await until(lambda: len(house.data.plane.in_flight) == len(clients))
            for client in clients:
                client.close()
            await house.settled()
            assert await _held(house) == "0"
            await until(lambda: not backend.connections)

    run_on(uvloop.new_event_loop, story())
