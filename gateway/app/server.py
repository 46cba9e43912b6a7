"""How every listener is served, and how it stops: unready, drained, closed."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import uvicorn
from litestar import Litestar
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin

from gateway.app.inbound import Inbound
from gateway.listeners import BACKLOG

_LAST_SECONDS: Final = 15  # after the drain: settlements, spool, connections


class Application(Litestar):
    """Litestar for msgspec alone. Of itself it loads plug-ins for whatever validator is installed,
    and pydantic comes with one of our extras: 9 MB and 60 ms for nothing.
    """

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
