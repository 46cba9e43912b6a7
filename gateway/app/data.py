"""The data listener: /v1, /healthz, /readyz."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException

from gateway.app.server import Application, nobody_asked, serve
from gateway.dataplane.endpoints import doors, routes, unforeseen
from gateway.errors import openai_error
from gateway.ops import Readiness, probes
from gateway.settings import Settings
from gateway.wiring.data import Data, open_data


def data_app(data: Data, stopping: asyncio.Event) -> Litestar:
    """Every route of the data listener. It is unready once `stopping` is set."""

    def readiness() -> Readiness:
        if stopping.is_set():
            return Readiness(ready=False, checks={"process": "draining"})
        store = data.whole.trouble() or "ok"
        return Readiness(ready=data.whole.begun, checks={"store": store})

    return Application(
        [*routes(data.plane), *probes(readiness)],
        doors=doors(data.plane),
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
    return _json(500, unforeseen(fault).body)


def _json(status: int, body: bytes) -> Response[bytes]:
    return Response(body, status_code=status, media_type="application/json")


def _spare_the_collector() -> None:
    """A request makes about a thousand objects and no cycle: looked for every 700 objects, as is
    the default, what is not there costs a tenth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def serve_data(
    settings: Settings, sock_fd: int, worker: int, ready: Callable[[], None] = nobody_asked
) -> None:
    """One data plane worker on an inherited listening socket, until SIGTERM or SIGINT; then
    unready, drained, settled, closed. `ready` is called once it takes connections.
    """
    stopping = asyncio.Event()
    async with open_data(settings, worker) as data:
        _spare_the_collector()

        app, seconds = data_app(data, stopping), settings.drain_seconds
        await serve(app, sock_fd, stopping, data.plane.drain, seconds, ready)
