"""A scripted backend and a transport that talks to it, both checked to end with nothing left."""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.backends.transport import Answer, Endpoint, PoolStats, Timeouts, Transport
from tests.loops import until
from tests.scripted_backend import Script, ScriptedBackend

JSON = [(b"content-type", b"application/json"), (b"x-request-id", b"r1")]
PATIENT = Timeouts()
LIMIT_BYTES = 1 << 20


def chat(*, stream: bool = False, text: str = "hi", **more: object) -> bytes:
    """The body of a chat request."""
    message = {"role": "user", "content": text}
    return json.dumps({"model": "m", "stream": stream, "messages": [message], **more}).encode()


class Pair:
    def __init__(self, backend: ScriptedBackend, transport: Transport) -> None:
        self.backend = backend
        self.transport = transport
        self.endpoint = Endpoint.parse(backend.base_url)

    async def ask(self, body: bytes, timeouts: Timeouts = PATIENT, **options: Any) -> Answer:
        return await self.transport.request(
            self.endpoint, "/chat/completions", JSON, body, timeouts, **options
        )

    async def deserted(self) -> None:
        """Sockets close a loop turn after they are told to."""
        await until(lambda: not self.stats.open and not self.backend.connections)

    @property
    def stats(self) -> PoolStats:
        return self.transport.stats(self.endpoint)


@asynccontextmanager
async def pair(
    script: Script | None = None,
    *scripts: Script,
    server_tls: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[Pair]:
    """`scripts` are used up first; `options` are the transport's."""
    async with ScriptedBackend(server_tls) as backend:
        backend.script = script or Script()
        backend.scripts = list(scripts)
        transport = Transport(**options)
        try:
            yield Pair(backend, transport)
        finally:
            await transport.close()
            assert transport.stats(Endpoint.parse(backend.base_url)) == PoolStats(0, 0, 0)


async def pieces(answer: Answer) -> list[bytes]:
    """The rest of the body as it comes."""
    found = []
    while (piece := await answer.receive()) is not None:
        found.append(piece)
    return found
