"""The listeners: which routes stand on which socket, and how a process leaves without losing
anything.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import uvicorn
from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException

from gateway import ids
from gateway.admin import problems
from gateway.admin.api import create_admin
from gateway.dataplane.endpoints import routes
from gateway.errors import INTERNAL, openai_error, render_openai
from gateway.ops import Readiness, probes, scrape
from gateway.settings import Settings
from gateway.wiring import Data, open_admin, open_data

_LOG: Final = logging.getLogger(__name__)
_LAST_SECONDS: Final = 15  # after the drain: settlements, spool, connections


def data_app(data: Data, stopping: asyncio.Event) -> Litestar:
    """The data listener: /v1, /healthz, /readyz."""

    def readiness() -> Readiness:
        if stopping.is_set():
            return Readiness(ready=False, checks={"process": "draining"})
        store = "ok" if data.channels.up else "out of reach; requests are refused"
        return Readiness(ready=True, checks={"store": store})

    return Litestar(
        [*routes(data.plane), *probes(readiness)],
        openapi_config=None,
        logging_config=None,
        exception_handlers={HTTPException: _unknown_route, Exception: _fault},
    )


def _unknown_route(request: Request[Any, Any, Any], fault: HTTPException) -> Response[bytes]:
    """Paths and methods that nobody has, in OpenAI's envelope."""
    status = fault.status_code
    if status == 405:
        message, code = f"{request.method} is not possible here", "method_not_allowed"
    elif status == 404:
        path = request.scope["path"][:200]
        message, code = f"there is nothing at {path}; the API begins at /v1", "not_found"
    else:
        message, code = "the request cannot be understood", "invalid_request"
    body = openai_error(message, "invalid_request_error", None, code)
    return _json(status, body)


def _fault(_: Request[Any, Any, Any], fault: Exception) -> Response[bytes]:
    request_id = ids.new("req")
    _LOG.error("request %s failed inside the gateway", request_id, exc_info=fault)
    return _json(500, render_openai(INTERNAL, request_id).body)


def _json(status: int, body: bytes) -> Response[bytes]:
    return Response(body, status_code=status, media_type="application/json")


async def serve_data(settings: Settings, sock_fd: int, worker: int) -> None:
    """One data plane worker on an inherited listening socket, until SIGTERM or SIGINT; then
    unready, drained, settled, closed.
    """
    stopping = asyncio.Event()
    async with open_data(settings, worker) as data:

        async def drain() -> None:
            await data.plane.drain(settings.drain_seconds)

        await _serve(data_app(data, stopping), sock_fd, stopping, drain, settings.drain_seconds)


async def serve_admin(settings: Settings, sock_fd: int) -> None:
    """The admin listener: /admin/v1, /metrics, /healthz, /readyz."""
    stopping = asyncio.Event()
    async with open_admin(settings) as opened:

        def readiness() -> Readiness:
            return Readiness(ready=not stopping.is_set(), checks={})

        app = Litestar(
            [create_admin(opened.deps), *probes(readiness), scrape(opened.telemetry)],
            openapi_config=None,
            logging_config=None,
            exception_handlers=problems.HANDLERS,
        )

        async def drain() -> None:
            return

        await _serve(app, sock_fd, stopping, drain, min(settings.drain_seconds, 10))


def server_config(app: Litestar, drain_seconds: int) -> uvicorn.Config:
    """How every listener is served. Nothing about us or the time is sent that nobody asked for."""
    return uvicorn.Config(
        app,
        http="httptools",
        loop="none",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=drain_seconds + _LAST_SECONDS,
    )


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: when and how to stop is decided here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(
    app: Litestar,
    sock_fd: int,
    stopping: asyncio.Event,
    drain: Callable[[], Awaitable[None]],
    drain_seconds: int,
) -> None:
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
