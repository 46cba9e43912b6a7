"""The no-op of the bench: the same server and the same transport, and nothing in between.

`python -m tests.bench.passthrough BACKEND_PORT` prints the port it listens on.
"""

import asyncio
import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvicorn
import uvloop

from gateway.backends.transport import Endpoint, Timeouts, Transport

_HEADERS: Final = ((b"content-type", b"application/json"),)

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class PassThrough:
    """An ASGI application that sends every body on, and every piece of the answer back."""

    def __init__(self, target: Endpoint) -> None:
        self._target = target
        self._transport = Transport()
        self._timeouts = Timeouts()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        answer = await self._transport.request(
            self._target, scope["path"], _HEADERS, body, self._timeouts
        )
        await send(
            {"type": "http.response.start", "status": answer.status, "headers": answer.headers}
        )
        while (piece := await answer.receive()) is not None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _serve(backend_port: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    app = PassThrough(Endpoint.parse(f"http://127.0.0.1:{backend_port}"))
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="none",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
    )
    print(listener.getsockname()[1], flush=True)
    server = asyncio.create_task(uvicorn.Server(config).serve(sockets=[listener]))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.cancel()


if __name__ == "__main__":
    logging.disable()  # streams cut by the end of a measurement are no news
    uvloop.run(_serve(int(sys.argv[1])))
