"""A crowd of clients that read streams: one process, thousands of connections.

`python -m tests.streams.crowd HOST PORT KEY`; then one command a line on standard input, as JSON,
and one answer a line on standard output. Kill it, and every client vanishes at once.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter
from typing import Any, Final

import msgspec
import uvloop

PATH: Final = "/v1/chat/completions"
_CODE: Final = re.compile(rb'"code":"(\w+)"')


class Command(msgspec.Struct, frozen=True):
    """`open` so many more streams, each with this body; or only tell how things stand."""

    open: int = 0
    body: str = ""
    at_once: int = 100  # not more than so many wait for their first event
    reading: bool = True  # False: the clients take the head and the first bytes, then nothing more


class Standing(msgspec.Struct, frozen=True):
    """`first_event_ms` is sorted: how long each client waited for its stream to begin."""

    streaming: int
    ended: int
    refused: dict[str, int]
    events: int
    received_bytes: int
    first_event_ms: list[float]


class Crowd:
    def __init__(self) -> None:
        self.streaming: set[Client] = set()
        self.ended = 0
        self.refused: Counter[str] = Counter()
        self.events = 0
        self.received_bytes = 0
        self.first_event_ms: list[float] = []

    def standing(self) -> Standing:
        return Standing(
            streaming=len(self.streaming),
            ended=self.ended,
            refused=dict(self.refused),
            events=self.events,
            received_bytes=self.received_bytes,
            first_event_ms=sorted(self.first_event_ms),
        )


class Client(asyncio.Protocol):
    """One connection with one stream on it."""

    def __init__(self, crowd: Crowd, request: bytes, reading: bool) -> None:
        self._crowd = crowd
        self._request = request
        self._reading = reading
        self._began = time.monotonic()
        self._head = b""
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        crowd = self._crowd
        crowd.received_bytes += len(data)
        if self in crowd.streaming:
            crowd.events += data.count(b"data: ")
            return
        self._head += data
        if self._head.startswith(b"HTTP/1.1 200") and b"data: " in self._head:
            crowd.first_event_ms.append((time.monotonic() - self._began) * 1000)
            crowd.events += self._head.count(b"data: ")
            crowd.streaming.add(self)
            self._head = b""
            if not self._reading:
                self._transport.pause_reading()
            self.begun.set_result(None)
        elif _CODE.search(self._head):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._crowd.streaming:
            self._crowd.streaming.discard(self)
            self._crowd.ended += 1
        else:
            self._crowd.refused[_why(self._head)] += 1
            if not self.begun.done():
                self.begun.set_result(None)


def _why(answer: bytes) -> str:
    """A refusal's status and code, `nothing` where no answer came."""
    code = _CODE.search(answer)
    return f"{answer[9:12].decode() or 'nothing'} {code[1].decode() if code else ''}".strip()


def request_of(host: str, port: int, key: str, body: str, path: str = PATH) -> bytes:
    """The bytes of one request."""
    packed = body.encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(packed)}\r\n\r\n"
    )
    return head.encode() + packed


async def _open(crowd: Crowd, host: str, port: int, request: bytes, command: Command) -> None:
    gate = asyncio.Semaphore(command.at_once)
    loop = asyncio.get_running_loop()

    async def one() -> None:
        async with gate:
            try:
                _, client = await loop.create_connection(
                    lambda: Client(crowd, request, command.reading), host, port
                )
            except OSError as fault:
                crowd.refused[str(fault)] += 1
                return
            await client.begun

    await asyncio.gather(*(one() for _ in range(command.open)))


async def serve(host: str, port: int, key: str) -> None:
    """Commands until standard input ends."""
    loop = asyncio.get_running_loop()
    crowd = Crowd()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = msgspec.json.decode(line, type=Command)
        await _open(crowd, host, port, request_of(host, port, key, command.body), command)
        sys.stdout.write(msgspec.json.encode(crowd.standing()).decode() + "\n")
        sys.stdout.flush()


def stream_body(model: str, **script: Any) -> str:
    """A chat request whose text tells the scripted backend what to do."""
    text = f"tell me a long story script:{json.dumps(script)}"
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": model, "messages": messages, "stream": True, "max_tokens": 4096})


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
