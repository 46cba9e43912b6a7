"""An OpenAI-speaking backend that does what it is told and keeps its own book of what it did.

In a test's own loop: `async with ScriptedBackend() as backend: ... backend.base_url, backend.book`.
As a process: `with backend_process() as url:` or `python -m tests.scripted_backend --port 0`; then
`GET /__book`, `DELETE /__book` and `POST /__script` stand in for the attributes.
What it answers, and how it counts tokens, is in tests.scripted_answers.
"""

import argparse
import asyncio
import contextlib
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Self

import httptools
import msgspec

from tests import scripted_answers
from tests.scripted_answers import Asked, Script
from tests.scripted_wire import EventWriter, encoded, error, head

OPERATIONS = {
    b"/v1/chat/completions": "chat",
    b"/v1/completions": "completions",
    b"/v1/embeddings": "embeddings",
}


class Entry(msgspec.Struct, kw_only=True):
    """One request, as the backend saw it."""

    request_id: str
    path: str
    headers: dict[str, str]
    body: Any  # decoded, None where it was not JSON
    bytes_received: int  # of the body
    model: str = ""
    stream: bool = False
    max_tokens: int | None = None
    prompt_tokens: int = 0
    generated_tokens: int = 0  # of all choices, sent or not
    reported: dict[str, Any] | None = None  # the last usage that was written to the client
    status: int = 0  # 0: nothing was answered
    finished: bool = False  # the answer was written to its scripted end
    client_disconnected: bool = False  # before that


class ScriptedBackend:
    """`scripts` are used up first, one a request; then `script`; a script in a request's text
    comes before both."""

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        models: tuple[str, ...] = ("m",),
        backlog: int = 4096,
    ) -> None:
        self.script = Script()
        self.scripts: list[Script] = []
        self.book: list[Entry] = []
        self.metrics: bytes | None = None  # what GET /metrics says; None: 404
        self.looked_at: list[dict[str, str]] = []  # the headers of each who asked
        self.models = models
        self.answering = asyncio.Event()  # cleared: requests are taken, none is answered
        self.answering.set()
        self.connections: set[_Connection] = set()
        self.accepted = 0
        self.at_work = 0  # requests whose answers are not at their end
        self.peak = 0  # the most that there were at a time
        self.port = 0
        self._tls = tls
        self._backlog = backlog
        self._server: asyncio.Server | None = None
        self._deserted = asyncio.Event()

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), "127.0.0.1", port, ssl=self._tls, backlog=self._backlog
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.abort()
        if self.connections:
            self._deserted = asyncio.Event()
            await self._deserted.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def stopped(self) -> bool:
        return self._server is not None and not self._server.is_serving()

    @property
    def base_url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/v1"

    def lost(self, connection: "_Connection") -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._deserted.set()

    def script_for(self, asked: Asked) -> Script:
        written = scripted_answers.script_in(asked)
        if written is not None:
            return written
        return self.scripts.pop(0) if self.scripts else self.script


class _Connection(asyncio.Protocol):
    def __init__(self, backend: ScriptedBackend) -> None:
        self._backend = backend
        self._transport: asyncio.Transport
        self._parser: httptools.HttpRequestParser
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self.gone = asyncio.Event()

    def abort(self) -> None:
        self._transport.abort()
        if self._task is not None:
            self._task.cancel()

    def speak(self, data: bytes) -> None:
        """Writes whatever a test wants said, in or out of turn."""
        self._transport.write(data)

    @property
    def heard(self) -> bool:
        """A whole request has come in and its answer is not at its end."""
        return self._task is not None

    # ---- asyncio.Protocol and httptools callbacks ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._parser = httptools.HttpRequestParser(self)
        self._writable.set()
        self._backend.connections.add(self)
        self._backend.accepted += 1
        if self._backend.stopped:  # it was on its way in when the listener closed
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self._writable.set()
        if self._task is None:
            self._backend.lost(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        method, body = self._parser.get_method(), b"".join(self._pieces)
        self._task = asyncio.get_running_loop().create_task(self._answer(method, body))
        self._task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if self.gone.is_set():
            self._backend.lost(self)
        if not task.cancelled() and task.exception() is not None:
            self._transport.abort()
            task.result()

    # ---- the answer ----

    async def _answer(self, method: bytes, body: bytes) -> None:
        backend = self._backend
        path = self._url.partition(b"?")[0]
        if path in (b"/__book", b"/__script"):
            self._plain(200, self._control(method, path, body))
            return
        if path == b"/v1/models":
            models = [{"id": name, "object": "model"} for name in backend.models]
            self._plain(200, msgspec.json.encode({"object": "list", "data": models}))
            return
        if path == b"/metrics":
            backend.looked_at.append(self._headers)
            self._plain(404 if backend.metrics is None else 200, backend.metrics or b"")
            return
        entry = Entry(
            request_id=self._headers.get("x-request-id", ""),
            path=path.decode("latin-1"),
            headers=self._headers,
            body=None,
            bytes_received=len(body),
        )
        backend.book.append(entry)
        operation = OPERATIONS.get(path)
        try:
            entry.body = msgspec.json.decode(body, type=dict)
        except msgspec.MsgspecError:
            operation = None
        if operation is None:
            entry.status, entry.finished = 400, True
            self._plain(400, error("this backend does not understand", 400))
            return
        asked = Asked(operation, entry.body)
        entry.model, entry.stream, entry.max_tokens = asked.model, asked.stream, asked.max_tokens
        entry.prompt_tokens = scripted_answers.prompt_tokens(asked)
        backend.at_work += 1
        backend.peak = max(backend.peak, backend.at_work)
        try:
            await self._perform(asked, backend.script_for(asked), entry)
        finally:
            backend.at_work -= 1

    def _control(self, method: bytes, path: bytes, body: bytes) -> bytes:
        if path == b"/__script":
            self._backend.script = msgspec.json.decode(body, type=Script)
            return b"{}"
        answer = msgspec.json.encode(self._backend.book)
        if method == b"DELETE":
            self._backend.book.clear()
        return answer

    async def _perform(self, asked: Asked, script: Script, entry: Entry) -> None:
        try:
            await self._backend.answering.wait()
            if script.delay_ms:
                await self._pause(script.delay_ms)
            if script.silent:
                await self.gone.wait()
            elif script.raw is not None:
                self._transport.write(script.raw.encode("latin-1"))
                entry.finished = True
            elif script.status != 200 or script.body is not None:
                self._refuse(script, entry)
            elif asked.stream and asked.operation != "embeddings":
                await self._stream(asked, script, entry)
            else:
                self._whole(asked, script, entry)
        finally:
            entry.client_disconnected = self.gone.is_set() and not entry.finished
        if script.hang_up and script.hang_up_after_ms:
            self._transport.pause_reading()
            later_s = script.hang_up_after_ms / 1000
            asyncio.get_running_loop().call_later(later_s, self._transport.close)
        elif script.hang_up or script.close:
            self._transport.close()

    def _refuse(self, script: Script, entry: Entry) -> None:
        body = script.body.encode() if script.body is not None else None
        if body is None:
            body = error(f"scripted status {script.status}", script.status)
        entry.status, entry.finished = script.status, True
        headers = {"retry-after": script.retry_after} if script.retry_after is not None else {}
        self._plain(script.status, body, script.content_type or "application/json", headers)

    def _whole(self, asked: Asked, script: Script, entry: Entry) -> None:
        answer = scripted_answers.plain(asked, script, len(self._backend.book))
        if asked.operation != "embeddings":
            entry.generated_tokens = (
                scripted_answers.generated_tokens(asked, script) * asked.choices
            )
        entry.reported = answer.get("usage")
        entry.status = 200
        body = msgspec.json.encode(answer)
        kind = script.content_type or "application/json"
        if script.cut_at_byte is not None and script.cut_at_byte < len(body):
            self._transport.write(head(200, kind, len(body)) + body[: script.cut_at_byte])
            self._transport.close()
            return
        entry.finished = not self.gone.is_set()
        if script.close:
            self._transport.write(head(200, kind, None, {"connection": "close"}) + body)
        else:
            self._plain(200, body, kind)

    async def _stream(self, asked: Asked, script: Script, entry: Entry) -> None:
        entry.status = 200
        framing = {"connection": "close"} if script.close else {"transfer-encoding": "chunked"}
        kind = script.content_type or "text/event-stream"
        self._transport.write(head(200, kind, None, framing))
        writer = EventWriter(self._transport, script, chunked=not script.close)
        events = scripted_answers.events(asked, script, len(self._backend.book))
        for chunks, (tokens, chunk) in enumerate(events):
            if script.chunk_delay_ms:
                await self._pause(script.chunk_delay_ms)
            await self._turn()
            if self.gone.is_set() and not script.keep_generating:
                return
            if script.error_after_chunks == chunks:
                writer.write(error("scripted failure", 500))
                break
            if script.stall_after_chunks == chunks:
                await self.gone.wait()
                return
            if script.cut_after_chunks == chunks or writer.cut:
                self._transport.close()
                return
            entry.generated_tokens += tokens
            writer.write(encoded(chunk, script))
            if not self.gone.is_set():
                entry.reported = chunk.get("usage") or entry.reported
        if not script.no_done:
            writer.write(b"[DONE]")
        if writer.cut:
            self._transport.close()
            return
        writer.end()
        entry.finished = not self.gone.is_set()

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        await self._writable.wait()

    async def _pause(self, pause_ms: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_ms / 1000):
                await self.gone.wait()

    def _plain(
        self,
        status: int,
        body: bytes,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        self._transport.write(head(status, kind, len(body), headers) + body)


@contextlib.contextmanager
def backend_process(*arguments: str) -> Iterator[str]:
    """The base URL of a backend in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.scripted_backend", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError("the scripted backend did not start")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)
        if process.stdout is not None:
            process.stdout.close()


async def _serve(port: int, models: tuple[str, ...]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    backend = ScriptedBackend(models=models)
    await backend.start(port)
    print(backend.base_url, flush=True)
    await stop.wait()
    await backend.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.scripted_backend")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", action="append", default=[], help="names for /v1/models")
    parsed = parser.parse_args()
    asyncio.run(_serve(parsed.port, tuple(parsed.model) or ("m",)))


if __name__ == "__main__":
    main()
