"""How every listener is served, and how it stops: unready, drained, closed."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

import uvicorn
from litestar import Litestar
from litestar.enums import ScopeType
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import (
    ASGIApp,
    LifeSpanReceive,
    LifeSpanScope,
    LifeSpanSend,
    Receive,
    Scope,
    Send,
)

from gateway.app.inbound import Inbound
from gateway.listeners import BACKLOG

_LAST_SECONDS: Final = 15  # after the drain: settlements, spool, connections


class Application(Litestar):
    """Litestar for msgspec alone, with doors.

    Of itself it loads plug-ins for whatever validator is installed, and pydantic comes with one of
    our extras: 9 MB and 60 ms for nothing. A door answers the requests whose path is exactly its
    bytes, before the framework looks at them, and the framework never sees those.
    """

    def __init__(
        self, *args: Any, doors: Mapping[bytes, ASGIApp] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._doors = doors or {}

    async def __call__(
        self,
        scope: Scope | LifeSpanScope,
        receive: Receive | LifeSpanReceive,
        send: Send | LifeSpanSend,
    ) -> None:
        door: Any = None
        if scope["type"] == ScopeType.HTTP:
            door = self._doors.get(scope["raw_path"])  # type: ignore[typeddict-item]
        await (door or super().__call__)(scope, receive, send)

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def server_config(app: Litestar, drain_seconds: int) -> uvicorn.Config:
    """How every listener is served. Nothing about us or the time is sent that nobody asked for."""
    return uvicorn.Config(
        app,
        http=Inbound,
        loop="none",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=drain_seconds + _LAST_SECONDS,
    )


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: when and how to stop is decided here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    app: Litestar,
    sock_fd: int,
    stopping: asyncio.Event,
    drain: Callable[[], Awaitable[None]],
    drain_seconds: int,
) -> None:
    """Until SIGTERM or SIGINT, which sets `stopping`; returns once drained and closed."""
    listener = socket.socket(fileno=sock_fd)
    server = _Server(server_config(app, drain_seconds))
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.wait(
        {running, stopped := asyncio.create_task(stopping.wait())},
        return_when=asyncio.FIRST_COMPLETED,
    )
    stopped.cancel()
    await drain()
    await running
