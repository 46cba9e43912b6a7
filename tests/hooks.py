"""A webhook of somebody's: keeps what it is sent, and answers as it is told."""

import asyncio
from types import TracebackType
from typing import NamedTuple, Self


class Sent(NamedTuple):
    head: str  # request line and headers
    body: bytes

    def header(self, name: str) -> str:
        lines = [line.partition(": ") for line in self.head.split("\r\n")]
        return next(value for each, _, value in lines if each.lower() == name)


class Hook:
    """Use it as a context. `answers` are statuses, the last one for ever."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers) or [204]
        self.sent: list[Sent] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def url(self) -> str:
        if self._server is None:
            raise RuntimeError("the hook is not open")
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/budget/hook"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n")
        lengths = [line for line in head.split("\r\n") if line.startswith("content-length")]
        body = await reader.readexactly(int(lengths[0].partition(": ")[2]))
        self.sent.append(Sent(head, body))
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        answer = f"HTTP/1.1 {status} X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n"
        writer.write(f"{answer}connection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()
