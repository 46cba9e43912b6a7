"""Clients that ask, plain and streamed, and often leave before they have their answer: at any
moment from before they are connected to the last byte but one.

Runs as a process of its own: a `Job` as JSON on standard input, a `Result` on standard output.
"""

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from typing import Any, Final, Literal

import msgspec
import uvloop

from tests.streams.crowd import PATH, request_of

Way = Literal["connecting", "asking", "asked", "waiting", "reading", "whole"]
_EARLY: Final[tuple[Way, ...]] = ("connecting", "asking", "asked", "waiting", "reading")
_LONGEST_WAIT_S: Final = 0.08


class Job(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    port: int
    key: str
    model: str
    seconds: float
    clients: int = 24
    rest_s: float = 0.0  # between two requests of one client, on average
    leaving: float = 0.3  # the share of requests that are given up
    requests: int = 0  # stop after so many, however long it takes; 0: no such end
    seed: int = 20_261_121


class Got(msgspec.Struct, frozen=True, array_like=True):
    """One answer as far as its client saw it. `tokens` is what a whole answer reported."""

    request_id: str
    whole: bool
    events: int
    tokens: int


class Result(msgspec.Struct, frozen=True):
    """`got` has every request whose answer began; `failures` every other that was not given up."""

    whole: int
    left: dict[str, int]
    failures: dict[str, int]
    got: list[Got]


class Churn:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.dice = random.Random(job.seed)
        self.whole = 0
        self.asked = 0
        self.left: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.got: list[Got] = []

    def result(self) -> Result:
        return Result(self.whole, dict(self.left), dict(self.failures), self.got)

    def over(self, until: float) -> bool:
        if self.job.requests:
            return self.asked >= self.job.requests
        return time.monotonic() >= until


class Ask(msgspec.Struct, frozen=True):
    """One request and its fate. `way` whole: the client stays to the end."""

    request: bytes
    stream: bool
    way: Way
    wait_s: float
    events: int  # after so many events, or bytes of a plain answer, a reading client leaves


def draw(churn: Churn) -> Ask:
    job, dice = churn.job, churn.dice
    stream = dice.random() < 0.5
    script: dict[str, Any] = {"tokens": dice.randrange(1, 60)}
    if stream:
        script["chunk_delay_ms"] = dice.choice((0, 0, 1, 4))
    else:
        script["delay_ms"] = dice.choice((0, 0, 5, 40))
    text = f"say {'more ' * dice.randrange(40)} script:{json.dumps(script)}"
    body = {
        "model": job.model,
        "messages": [{"role": "user", "content": text}],
        "stream": stream,
        "max_tokens": 100,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}
    return Ask(
        request=request_of(job.host, job.port, job.key, json.dumps(body), PATH),
        stream=stream,
        way=dice.choice(_EARLY) if dice.random() < job.leaving else "whole",
        wait_s=dice.random() ** 2 * _LONGEST_WAIT_S,
        events=dice.randrange(1, 40),
    )


class Left(Exception):  # noqa: N818 - it names what happened
    """The client has given up."""


class Client:
    """Asks one thing after another, on one connection for as long as it lasts."""

    def __init__(self, churn: Churn) -> None:
        self._churn = churn
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def run(self, until: float) -> None:
        churn = self._churn
        while not churn.over(until):
            churn.asked += 1
            ask = draw(churn)
            await asyncio.sleep(churn.dice.random() * 2 * churn.job.rest_s)
            try:
                await self._one(ask)
            except Left:
                churn.left[ask.way] += 1
                self.hang_up()
            except (OSError, EOFError, ValueError, IndexError) as fault:
                churn.failures[f"{type(fault).__name__} {fault}"[:200]] += 1
                self.hang_up()
        self.hang_up()

    def hang_up(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def _one(self, ask: Ask) -> None:
        reader, writer = await self._connected(ask)
        if ask.way == "asking":
            writer.write(ask.request[: len(ask.request) - self._churn.dice.randrange(1, 200)])
            await asyncio.sleep(ask.wait_s / 10)
            raise Left
        writer.write(ask.request)
        if ask.way == "asked":
            await asyncio.sleep(0)
            raise Left
        try:
            async with asyncio.timeout(ask.wait_s if ask.way == "waiting" else None):
                await self._answer(ask, reader)
        except TimeoutError:
            raise Left from None

    async def _connected(self, ask: Ask) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        job = self._churn.job
        if ask.way == "connecting":
            self.hang_up()
            opening = asyncio.ensure_future(asyncio.open_connection(job.host, job.port))
            await asyncio.sleep(0)
            if not opening.cancel():
                opening.result()[1].transport.abort()
            with contextlib.suppress(asyncio.CancelledError):
                (await opening)[1].transport.abort()
            raise Left
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(job.host, job.port)
        return self._reader, self._writer

    async def _answer(self, ask: Ask, reader: asyncio.StreamReader) -> None:
        churn = self._churn
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            churn.failures[head[9:12].decode()] += 1
            self.hang_up()
            return
        request_id = _header(head, b"x-request-id").decode()
        events, body = 0, b""
        try:
            async for piece in _pieces(head, reader):
                events += piece.count(b"data: ") if ask.stream else len(piece)
                body = (body + piece)[-2_000:]
                if ask.way == "reading" and events >= ask.events:
                    raise Left
        finally:
            whole = body.endswith(b"[DONE]\n\n") if ask.stream else body.endswith(b"}")
            tokens = _tokens(body) if whole else 0
            churn.got.append(Got(request_id, whole, events, tokens))
        if not whole:
            raise ValueError(f"an answer ended early: {body[-100:]!r}")
        churn.whole += 1


async def _pieces(head: bytes, reader: asyncio.StreamReader) -> Any:
    """The body, chunk by chunk."""
    length = _header(head, b"content-length")
    if length:
        yield await reader.readexactly(int(length))
        return
    while size := int(await reader.readline(), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readline()


def _header(head: bytes, name: bytes) -> bytes:
    _, found, rest = head.partition(b"\r\n" + name + b": ")
    return rest.partition(b"\r\n")[0] if found else b""


def _tokens(body: bytes) -> int:
    """What the answer says that it generated."""
    return int(body.rpartition(b'"completion_tokens":')[2].partition(b",")[0])


async def churn(job: Job) -> Result:
    state = Churn(job)
    until = time.monotonic() + job.seconds
    await asyncio.gather(*(Client(state).run(until) for _ in range(job.clients)))
    return state.result()


if __name__ == "__main__":
    told = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    sys.stdout.write(msgspec.json.encode(uvloop.run(churn(told))).decode() + "\n")
