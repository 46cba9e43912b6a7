"""A listener of ours before an application that says what it was sent; clients that send bytes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from gateway.app.inbound import Inbound
from gateway.app.server import server_config


class Server:
    """Answers what it was sent: the headers' names, and the size of the body."""

    def __init__(self) -> None:
        self.port = 0
        self.seen: list[dict[str, Any]] = []
        self.gone = 0
        self.refuse = False
        self.state: Any = None  # uvicorn's, of its server

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        size, more = 0, not self.refuse
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            size += len(message["body"])
            more = message["more_body"]
        names = [name.decode() for name, _ in scope["headers"]]
        self.seen.append({"headers": names, "size": size})
        body = json.dumps(self.seen[-1]).encode()
        head = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})


class Patient(Server):
    """Answers a request when it is told to, and counts those who did not wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0
        self.may = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        while (await receive())["more_body"]:
            pass
        leaving = asyncio.create_task(receive())
        going = asyncio.create_task(self.may.wait())
        await asyncio.wait({leaving, going}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            self.gone += 1
        leaving.cancel()
        going.cancel()
        path = scope["path"].encode()
        head = [(b"content-length", b"%d" % len(path))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": path})


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Until all is sent, or the server has hung up."""
        try:
            for piece in pieces:
                if self.writer.is_closing():  # uvloop refuses to write then
                    return
                self.writer.write(piece)
                await self.writer.drain()
                if pause:
                    await asyncio.sleep(pause)
        except ConnectionError:
            return

    async def answer(self) -> tuple[int, Any]:
        """Status and JSON of one answer; (0, None) when the connection is closed without one."""
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return int(head.split()[1]), json.loads(await self.reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, None

    async def closed(self) -> bool:
        """Whether nothing more comes; waits for it."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def serving(
    protocol: type[Inbound] = Inbound,
    served: Server | None = None,
) -> AsyncIterator[tuple[Server, Callable[[], Awaitable[Client]]]]:
    served = served or Server()
    config = server_config(served, 1)  # type: ignore[arg-type] - any ASGI app will do
    config.http, config.port = protocol, 0
    server = uvicorn.Server(config)
    running = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.001)
    served.port = server.servers[0].sockets[0].getsockname()[1]
    served.state = server.server_state
    clients: list[Client] = []

    async def connect() -> Client:
        clients.append(Client(*await asyncio.open_connection("127.0.0.1", served.port)))
        return clients[-1]

    try:
        yield served, connect
    finally:
        for client in clients:
            client.writer.transport.abort()
        server.should_exit = True
        await running
