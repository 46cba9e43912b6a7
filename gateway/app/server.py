"""How every listener is served, and how it stops: unready, drained, closed."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

import uvicorn
from litestar import Litestar
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

_LEAVE_SECONDS: Final = 6.0  # common clients forget a connection that was idle for 5
_LOOK_EVERY_SECONDS: Final = 0.05
_CLOSE: Final = (b"connection", b"close")
_LAST_SECONDS: Final = 15  # after the drain: settlements, spool, connections
_CUT_SECONDS: Final = 5  # after that: what is cut short says so, and settles


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
        asked: Any = scope
        door = self._doors.get(asked.get("raw_path")) if asked["type"] == "http" else None
        await (door or super().__call__)(asked, receive, send)  # type: ignore[arg-type]

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

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def take_leave(self, hurry: asyncio.Event) -> None:
        """Until no client is connected, or those that are have had the time to forget an idle
        connection: closed under a client's hands, it would fail a request that nobody has read.
        Whoever still asks is served and told that it was the last time on this connection.
        """
        self.config.encoded_headers.append(_CLOSE)  # for the answers from the next second on
        self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]
        until = asyncio.get_running_loop().time() + _LEAVE_SECONDS
        while self.server_state.connections and not hurry.is_set():
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(hurry.wait(), min(left, _LOOK_EVERY_SECONDS))


def nobody_asked() -> None:
    """For a listener of whose start nobody wants to hear."""


async def serve(
    app: Litestar,
    sock_fd: int,
    stopping: asyncio.Event,
    drain: Callable[[int], Awaitable[None]],
    drain_seconds: int,
    ready: Callable[[], None] = nobody_asked,
) -> None:
    """Until SIGTERM or SIGINT, which sets `stopping`; returns once drained and closed. SIGTERM lets
    clients take their leave first, and a second signal of either kind does not. `drain` waits so
    many seconds for the requests that hold something; all others have as long as these.
    """
    listener = socket.socket(fileno=sock_fd)
    server = _Server(server_config(app, drain_seconds), ready)
    loop = asyncio.get_running_loop()
    hurry = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        if stopping.is_set() or number is signal.SIGINT:
            hurry.set()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.wait(
        {running, stopped := asyncio.create_task(stopping.wait())},
        return_when=asyncio.FIRST_COMPLETED,
    )
    stopped.cancel()
    if not running.done():
        await server.take_leave(hurry)
    server.should_exit = True
    until = loop.time() + drain_seconds
    await drain(drain_seconds)
    await asyncio.wait({running}, timeout=max(0.0, until - loop.time()))
    connections: set[Any] = server.server_state.connections  # lines of ours, whatever its type says
    for connection in list(connections):
        connection.give_up()
    await drain(0)  # for who came whole in the meantime
    await running
    if cut := set(server.server_state.tasks):  # cancelled just now; what they need is open still
        await asyncio.wait(cut, timeout=_CUT_SECONDS)
