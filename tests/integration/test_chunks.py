"""Events of a stream, one by one: none is held for the next, cut in two, or glued to its neighbour.

The backend says the next event only when the client has the one before, so that an event that were
held back would be waited for in vain.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from tests.house import furnish, open_house
from tests.loops import run_on, until
from tests.scripted_backend import Script, ScriptedBackend
from tests.transport_pair import chat

HEAD = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENTS = 300


def event(number: int, end: str = "\n\n") -> bytes:
    delta = {"choices": [{"index": 0, "delta": {"content": f" w{number}"}, "finish_reason": None}]}
    return f"data: {json.dumps(delta)}{end}".encode()


class Stream:
    """A stream whose two ends are ours: what the backend says, and what the client gets."""

    def __init__(
        self, backend: ScriptedBackend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        (self._backend_side,) = backend.connections
        self._reader = reader
        self._writer = writer

    def say(self, *pieces: bytes) -> None:
        """All pieces in one write, each an HTTP chunk of its own."""
        chunks = (b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        self._backend_side.speak(b"".join(chunks))

    async def chunk(self) -> bytes:
        """The next HTTP chunk the client gets."""
        size = int(await self._reader.readline(), 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    async def nothing_more(self) -> bool:
        """Whether the client gets nothing for a moment."""
        try:
            async with asyncio.timeout(0.1):
                await self._reader.read(1)
        except TimeoutError:
            return True
        return False

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


@asynccontextmanager
async def stream(home: Path, store_url: str) -> AsyncIterator[Stream]:
    """Opened, with its first event passed."""
    async with ScriptedBackend() as backend, open_house(home, store_url) as house:
        world = await furnish(house, {"base_url": backend.base_url})
        backend.script = Script(raw=HEAD)
        host, port = house.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = chat(stream=True).replace(b'"m"', b'"chat"')
        writer.write(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer "
            f"{world.secret}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        )
        writer.write(body)
        await until(lambda: bool(backend.book and backend.book[0].finished))
        opened = Stream(backend, reader, writer)
        opened.say(event(0))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await opened.chunk() == event(0)
        yield opened
        await opened.close()
        await house.settled()


def test_each_event_reaches_the_client_before_the_next_is_made(
    tmp_path: Path, store_url: str
) -> None:
    async def story() -> None:
        async with stream(tmp_path, store_url) as s:
            for number in range(1, EVENTS):
                s.say(event(number))
                assert await s.chunk() == event(number)

    run_on(uvloop.new_event_loop, story())


def test_events_that_come_together_leave_together_and_wait_for_no_other(
    tmp_path: Path, store_url: str
) -> None:
    async def story() -> None:
        async with stream(tmp_path, store_url) as s:
            for first in range(1, EVENTS, 5):
                together = [event(number) for number in range(first, first + 5)]
                s.say(*together)
                got = b""
                while len(got) < len(b"".join(together)):
                    got += await s.chunk()
                assert got == b"".join(together)

    run_on(uvloop.new_event_loop, story())


def test_half_an_event_waits_for_its_other_half_and_for_nothing_else(
    tmp_path: Path, store_url: str
) -> None:
    async def story() -> None:
        async with stream(tmp_path, store_url) as s:
            for end in ("\n\n", "\r\n\r\n"):
                whole = event(7, end)
                for cut in (1, len(whole) // 2, len(whole) - 1):
                    s.say(whole[:cut])
                    assert await s.nothing_more()
                    s.say(whole[cut:])
                    assert await s.chunk() == whole

    run_on(uvloop.new_event_loop, story())


def test_a_whole_event_does_not_wait_for_the_half_that_came_with_it(
    tmp_path: Path, store_url: str
) -> None:
    async def story() -> None:
        async with stream(tmp_path, store_url) as s:
            for number in range(1, EVENTS, 2):
                whole, half = event(number), event(number + 1)
                s.say(whole + half[:20])
                assert await s.chunk() == whole
                s.say(half[20:])
                assert await s.chunk() == half

    run_on(uvloop.new_event_loop, story())
