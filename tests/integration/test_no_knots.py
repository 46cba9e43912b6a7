"""A request leaves nothing that only the garbage collector can undo: it stops the loop for it."""

import asyncio
import gc
import json
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
    ("kind", "end"),
    [("plain", b'"usage":'), ("stream", b"0\r\n\r\n"), ("refused", b'"error":')],
)
def test_a_request_ties_no_knot(tmp_path: Path, store_url: str, kind: str, end: bytes) -> None:
    async def story() -> None:
        async with open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend_url})
            host, port = house.url.removeprefix("http://").split(":")
            body = {
                "model": "chat" if kind != "refused" else "nobody knows it",
                "messages": [{"role": "user", "content": "hello"}],
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
                await ask(REQUESTS)
                assert gc.collect() < REQUESTS  # what is renewed at times, and no knot a request
            writer.close()
            await writer.wait_closed()

    with backend_process() as backend_url:
        run_on(uvloop.new_event_loop, story())
