"""The backend of the bench: answers at once, as cheaply as Python can, on one thread.

A plain answer is about 1 KB. A stream has 64 chunks, each with the monotonic time at which it left,
so that whoever reads it knows how long it took. `#d=MS` in the body puts MS milliseconds between
chunks. Usage comes where it is asked for, and never where the body says `#quiet`.
"""

import asyncio
import re
import sys
import time
from typing import Final

import uvloop

CHUNKS: Final = 64
_LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_DELAY: Final = re.compile(rb"#d=(\d+)")
_USAGE: Final = b'"usage":{"prompt_tokens":500,"completion_tokens":64,"total_tokens":564}'
_TEXT: Final = b"It was the best of times, it was the worst of times. " * 14
_ANSWER: Final = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1763762400,"model":"bench",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"'
    + _TEXT
    + b'"},"logprobs":null,"finish_reason":"stop"}],'
    + _USAGE
    + b"}"
)


def _head_of(answer: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(answer)


_PLAIN: Final = _head_of(_ANSWER) + _ANSWER
_QUIET: Final = b"#quiet"
_UNTOLD: Final = _ANSWER.replace(b"," + _USAGE, b"")
_PLAIN_QUIET: Final = _head_of(_UNTOLD) + _UNTOLD
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_CHUNK: Final = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1763762400,'
    b'"model":"bench","choices":[{"index":0,"delta":{"content":"@%d@"},"logprobs":null,'
    b'"finish_reason":%b}]}\n\n'
)
_LAST_USAGE: Final = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1763762400,'
    b'"model":"bench","choices":[],' + _USAGE + b"}\n\n"
)


class Backend(asyncio.Protocol):
    def __init__(self) -> None:
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        head, found, body = self._waiting.partition(b"\r\n\r\n")
        if not found:
            return
        length = _LENGTH.search(head)
        if len(body) < (int(length[1]) if length else 0):
            return
        self._waiting = b""
        if b'"stream":true' in body or b'"stream": true' in body:
            delay = _DELAY.search(body)
            self._transport.write(_STREAM_HEAD)
            self._next(0, int(delay[1]) / 1000 if delay else 0.0, b'"include_usage"' in body)
        else:
            self._transport.write(_PLAIN_QUIET if _QUIET in body else _PLAIN)

    def _next(self, number: int, delay_s: float, with_usage: bool) -> None:
        """One chunk, and the next one later; without a delay all of them in a row."""
        while number < CHUNKS and not self._transport.is_closing():
            reason = b'"stop"' if number == CHUNKS - 1 else b"null"
            self._write(_CHUNK % (time.monotonic_ns(), reason))
            number += 1
            if delay_s and number < CHUNKS:
                self._loop.call_later(delay_s, self._next, number, delay_s, with_usage)
                return
        if self._transport.is_closing():
            return
        if with_usage:
            self._write(_LAST_USAGE)
        self._write(b"data: [DONE]\n\n")
        self._transport.write(b"0\r\n\r\n")

    def _write(self, piece: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Backend, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # The bench closes our standard input, on purpose or by ending.
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve())
