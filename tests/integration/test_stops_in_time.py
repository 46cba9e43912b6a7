"""A listener that stops waits for bodies as long as for anything else, and no longer."""

import asyncio
import os
import signal
import socket
from typing import Any

import pytest

from gateway.app.server import serve
from tests.running import run
from tests.strangers import Client, Server

HEAD = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\n"


class Reading(Server):
    """Says when it has begun to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun.set()
        await super().__call__(scope, receive, send)


class Stopping:
    """A listener with this many seconds to drain. `drains`: how long it was told to, each time."""

    def __init__(self, seconds: int) -> None:
        self.served = Reading()
        self.drains: list[int] = []
        self.drained = asyncio.Event()
        self._seconds = seconds

    async def drain(self, seconds: int) -> None:
        """Nothing is held."""
        self.drains.append(seconds)
        self.drained.set()

    async def begun(self) -> tuple["asyncio.Task[None]", Client]:
        listener = socket.create_server(("127.0.0.1", 0))
        port, ready = listener.getsockname()[1], asyncio.Event()
        app: Any = self.served
        running = asyncio.create_task(
            serve(app, listener.detach(), asyncio.Event(), self.drain, self._seconds, ready.set)
        )
        await ready.wait()
        return running, Client(*await asyncio.open_connection("127.0.0.1", port))


async def told_to_stop(stopping: Stopping, client: Client) -> None:
    """Once half of a body is there."""
    await client.send(HEAD + b"abc")
    await stopping.served.begun.wait()
    os.kill(os.getpid(), signal.SIGINT)


def test_a_body_that_does_not_come_is_not_waited_for_beyond_the_drain(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        stopping = Stopping(1)
        running, client = await stopping.begun()
        await told_to_stop(stopping, client)
        assert (await client.reader.readline()).startswith(b"HTTP/1.1 500 ")
        await running
        assert stopping.drains == [1, 0]
        assert stopping.served.seen == []
        client.writer.close()

    run(scenario(), within_s=30)
    assert "graceful shutdown exceeded" not in caplog.text


def test_a_body_that_comes_in_time_is_answered() -> None:
    async def scenario() -> None:
        stopping = Stopping(60)
        running, client = await stopping.begun()
        await told_to_stop(stopping, client)
        await stopping.drained.wait()
        await client.send(b"def")
        status, told = await client.answer()
        assert (status, told["size"]) == (200, 6)
        await running
        assert stopping.drains == [60, 0]
        client.writer.close()

    run(scenario(), within_s=30)
