"""A request leaves nothing that only the garbage collector can undo: it stops the loop for it."""

import asyncio
import gc
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.house import furnish, open_house
from tests.loops import run_on
from tests.scripted_backend import backend_process

REQUESTS = 60
WATCHED = 15  # that last for long enough to have their client watched
LONG = 'script:{"delay_ms": 60}'  # more than two of hangup.TURN_S


@contextmanager
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _asked(key: str, body: dict[str, Any]) -> bytes:
    packed = json.dumps(body).encode()
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(packed)}\r\n\r\n"
    ).encode() + packed


@pytest.mark.parametrize(
    ("kind", "end", "requests"),
    [
        ("plain", b'"usage":', REQUESTS),
        ("stream", b"0\r\n\r\n", REQUESTS),
        ("refused", b'"error":', REQUESTS),
        ("long", b'"usage":', WATCHED),
    ],
)
def test_a_request_ties_no_knot(
    tmp_path: Path, store_url: str, kind: str, end: bytes, requests: int
) -> None:
    async def story() -> None:
        async with open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend_url})
            host, port = house.url.removeprefix("http://").split(":")
            body = {
                "model": "chat" if kind != "refused" else "nobody knows it",
                "messages": [{"role": "user", "content": LONG if kind == "long" else "hello"}],
                "max_tokens": 8,
                "stream": kind == "stream",
            }
            asked = _asked(world.secret, body)
            reader, writer = await asyncio.open_connection(host, int(port))

            async def ask(times: int) -> None:
                for _ in range(times):
                    writer.write(asked)
                    said = b""
                    while end not in said:
                        said += await reader.read(65_536)
                await house.settled()

            await ask(5)
            with uncollected():
                await ask(requests)
                assert gc.collect() < REQUESTS  # what is renewed at times, and no knot a request
            writer.close()
            await writer.wait_closed()

    with backend_process() as backend_url:
        run_on(uvloop.new_event_loop, story())


def test_a_connection_ties_none(tmp_path: Path, store_url: str) -> None:
    def visit(host: str, port: int) -> None:
        with socket.create_connection((host, port), timeout=30) as client:
            client.sendall(b"GET /nothing HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")
            while client.recv(65_536):
                pass

    async def story() -> None:
        async with open_house(tmp_path, store_url) as house:
            host, port = house.url.removeprefix("http://").split(":")

            async def visits(times: int) -> None:
                for _ in range(times):
                    await asyncio.to_thread(visit, host, int(port))

            await visits(5)
            with uncollected():
                await visits(REQUESTS)
                assert gc.collect() < REQUESTS

    run_on(uvloop.new_event_loop, story())
