"""One request and its answer: what an application reads and writes of a client's connection.

ASGI, with one thing added: a piece of a streamed answer can be written without a coroutine. Both
ways write through the same lines. The head of an answer waits for the first piece of its body, so
that they leave together.
"""

import asyncio
import logging
from typing import Any, Final, Protocol

from gateway.app.answer_head import AnswerHead, Headers

HIGH_WATER_BYTES: Final = 64 * 1024  # of a body that nobody has read yet
_JOIN_BELOW_BYTES: Final = 64 * 1024  # a larger piece is written beside its head
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_FAILED: Final = b"Internal Server Error"
_LOG: Final = logging.getLogger(__name__)


class Line(Protocol):
    """The connection, as an exchange sees it."""

    transport: asyncio.Transport
    behind: asyncio.Event | None  # set once the client has taken what waits; None: nothing waits
    tasks: set[asyncio.Task[None]]

    def headers(self, own: Headers) -> Headers: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def answered(self) -> None: ...


class Exchange:
    """Belongs to one connection, which tells it what comes and that the client is gone.

    It does not keep the scope: what is handed out there leads back here, and such a knot waits for
    the collector.
    """

    __slots__ = (
        "_bodiless",
        "_body",
        "_head",
        "_line",
        "_news",
        "_old",
        "_read",
        "_wants_continue",
        "_written",
        "complete",
        "gone",
        "keep_alive",
        "more_body",
        "started",
        "task",
    )

    def __init__(
        self, line: Line, method: bytes, old: bool, keep_alive: bool, wants_continue: bool
    ) -> None:
        """`old`: the client speaks an older HTTP than 1.1."""
        self.keep_alive = keep_alive
        self.more_body = True  # of the request is to come
        self.gone = False  # the client
        self.started = self.complete = False  # the answer
        self.task: asyncio.Task[None] | None = None
        self._line = line
        self._bodiless = method == b"HEAD"
        self._old = old
        self._wants_continue = wants_continue
        self._head: AnswerHead | None = None
        self._written = False  # the head
        self._body: bytes | bytearray = b""  # of the request, as far as nobody has read it
        self._read = False  # all of it
        self._news: asyncio.Event | None = None  # while somebody waits for some

    async def run(self, app: Any, scope: dict[str, Any]) -> None:
        """The application's whole part. An answer that is not complete after it never will be, and
        its connection is closed.
        """
        try:
            await app(scope, self.receive, self.send)
            if not (self.complete or self.gone):
                _LOG.error("a request was left without the end of its answer")
                await self._fail()
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - whatever it was, it is answered
            _LOG.exception("a request failed outside of its handler")
            await self._fail()
        finally:
            task, self.task = self.task, None
            if task is not None:
                self._line.tasks.discard(task)

    async def _fail(self) -> None:
        """An answer of ours, if the client has seen nothing of another."""
        if self._written:
            self._line.transport.close()
            return
        self._head, self.keep_alive = None, False
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(_FAILED)),
        ]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": _FAILED})

    # ---- the connection's side ----

    def feed(self, body: bytes) -> None:
        """A piece of the request's body."""
        if self.complete:
            return  # nobody will ask for it any more
        if not self._body:
            self._body = body
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body
        if self.full:
            self._line.pause_reading()
        self._tell()

    @property
    def full(self) -> bool:
        """Whether more of its body is here than is kept ahead of a reader. Of one that has its
        answer nothing more is kept.
        """
        return not self.complete and len(self._body) > HIGH_WATER_BYTES

    def end(self) -> None:
        """The request's body is whole."""
        self.more_body = False
        self._tell()

    def lose(self) -> None:
        """The client is gone."""
        self.gone = True
        self._tell()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()

    # ---- the application's side ----

    async def receive(self) -> Any:
        """More of the request; after that, waits for the end of the answer or of the client."""
        while not (self.gone or self.complete):
            if self._body or not (self.more_body or self._read):
                body, self._body = bytes(self._body), b""
                self._read = not self.more_body
                if self.more_body:
                    self._line.resume_reading()
                return {"type": "http.request", "body": body, "more_body": self.more_body}
            if self._wants_continue and self.more_body:
                self._wants_continue = False
                if not self._line.transport.is_closing():
                    self._line.transport.write(_CONTINUE)
            self._line.resume_reading()
            if self._news is None:
                self._news = asyncio.Event()
            self._news.clear()
            await self._news.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Waits while the client is behind. To one that is gone, everything is sent in silence."""
        if self._line.behind is not None and not self.gone:
            await self._line.behind.wait()
        if self.gone:
            return
        kind = message["type"]
        if kind == "http.response.body" and self.started and not self.complete:
            self._write(message.get("body", b""), last=not message.get("more_body", False))
        elif kind == "http.response.start" and self._head is None:
            self.started, self._wants_continue = True, False
            self._head = AnswerHead(
                message["status"],
                self._line.headers(message.get("headers", ())),
                self._bodiless,
                self._old,
                not self.keep_alive,
            )
        else:
            raise RuntimeError(f"{kind!r} in the wrong place of an answer")

    def at_once(self, piece: bytes) -> bool:
        """Whether the client takes a piece of a streamed answer without a wait; then it has it.
        RuntimeError unless the answer has begun, says nothing of its length, and has not ended; a
        client that is gone takes everything in silence.
        """
        if self.gone:
            return True
        if self._line.behind is not None:
            return False
        head = self._head
        if head is None or not (head.unsized and piece) or self.complete:
            raise RuntimeError("a piece outside of a streamed answer")
        self._write(piece, last=False)
        return True

    def _write(self, body: bytes, *, last: bool) -> None:
        head = self._head
        if head is None:
            raise RuntimeError("a body without its head")
        if head.chunked:
            said = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if last:
                said += b"0\r\n\r\n"
        else:
            said = head.measured(body, last=last)
        if not self._written:
            self._written = True
            if len(said) < _JOIN_BELOW_BYTES:
                said = head.lines + said
            else:
                self._line.transport.write(head.lines)
        if said:
            self._line.transport.write(said)
        if last:
            self.complete = True
            self._tell()
            if head.close or not self.keep_alive:
                self._line.transport.close()
            self._line.answered()
