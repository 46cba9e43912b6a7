"""One keep-alive connection to a backend: HTTP/1.1 on a socket, one exchange at a time."""

import asyncio
import math
import select
import socket
from collections.abc import Callable
from typing import Final, cast

import httptools

from gateway.backends import keepalive
from gateway.backends.answer import Answer
from gateway.backends.failures import (
    FirstByteTimeout,
    IdleTimeout,
    Malformed,
    TotalTimeout,
    TransportError,
    UpstreamClosed,
)

HEAD_LIMIT_BYTES: Final = 64 * 1024
_TELLING: Final = frozenset(
    (b"content-length", b"transfer-encoding", b"content-encoding", b"keep-alive")
)
_JOIN_BELOW_BYTES: Final = 64 * 1024  # a larger body is written beside its head, not copied into it


class Connection(asyncio.Protocol):
    """Feeds one Answer at a time; tells its owner when it is free again and when it is gone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        keepalive_s: float,
        free: Callable[["Connection"], None],
        gone: Callable[["Connection"], None],
    ) -> None:
        self.open = False
        self.made = False
        self.made_at = 0.0  # loop time, as the next
        self.idle_since = -math.inf  # the end of the last answer; never: long ago
        self.hung_up = False  # by the backend, and not in the middle of an answer
        self.chunked = False  # the last answer
        self._loop = loop
        self._keepalive_s = keepalive_s
        self._free = free
        self._gone = gone
        self._transport: asyncio.Transport
        self._pieces: list[bytes] = []  # of the body, of the read in hand
        self.on_body = self._pieces.append  # before the parser asks: most of its calls are this one
        self._parser = httptools.HttpResponseParser(self)
        self._poll: Callable[[int], list[tuple[int, int]]]
        self._answer: Answer | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._in_head = False  # of a final answer; trailers come later and are dropped
        self._whole = False
        self._framed = False  # the answer says itself where it ends
        self._reusable = False
        self._idle_s = keepalive_s
        self._idle_until = math.inf
        self._promise = b""
        self._more = math.inf  # requests the backend takes on this connection
        self._alarm_at = math.inf
        self._alarm: asyncio.TimerHandle | None = None

    # ---- the owner's side ----

    def send(
        self, head: bytes, body: bytes, idle_s: float, first_byte_s: float, total_at: float
    ) -> tuple[Answer, float]:
        """Writes a request; answers the Answer to come and the loop time its head is due."""
        answer = Answer(self._loop, self, idle_s, total_at)
        self._answer = answer
        self._headers = answer.headers
        self._head_bytes = 0
        self._in_head = True
        self._whole = self._framed = self._reusable = False
        if len(body) < _JOIN_BELOW_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return answer, self._loop.time() + first_byte_s

    def usable(self) -> bool:
        """Still open, and nothing waits to be read: an idle server that speaks is hanging up."""
        if self.open and not self._transport.is_closing():
            if not self._poll(0):
                return True
            self.hung_up = True
        return False

    def rest(self, now: float) -> None:
        """Idle from now on; closes itself when its keep-alive time is over."""
        self.idle_since = now
        self._idle_until = now + self._idle_s
        self.wake_by(self._idle_until)

    def abort(self) -> None:
        """Closes the socket at once; what was still to be written is dropped."""
        self._answer = None
        self.open = False
        if self.made:
            self._transport.abort()

    def close(self) -> None:
        """As `abort`, and tells whoever waits for the answer."""
        self._fail(TransportError("the transport was closed"))

    def resume(self) -> None:
        if self.open:
            self._transport.resume_reading()

    def wake_by(self, at_s: float) -> None:
        """Look at the deadlines at this loop time at the latest.

        The alarm is only ever moved forward: most requests find one that is early enough and
        touch no timer at all.
        """
        if at_s < self._alarm_at:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm_at = at_s
            self._alarm = self._loop.call_at(at_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._alarm_at = math.inf
        now = self._loop.time()
        answer = self._answer
        if answer is None:
            due = self._idle_until
            if now >= due:
                self.abort()
                return
        elif answer.waiting and now >= answer.patience_at:
            self._fail(_out_of_patience(answer, now))
            return
        elif now >= answer.total_at:
            self._fail(TotalTimeout("the answer took too long as a whole"))
            return
        else:
            due = answer.patience_at if answer.waiting else answer.total_at
        if self.open:
            self.wake_by(min(due, now + self._keepalive_s))

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it
        self.made = self.open = True
        self.made_at = self._loop.time()
        sock = transport.get_extra_info("socket")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        self._poll = poll.poll

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:  # it speaks out of turn: its next words would be taken for an answer
            self.hung_up = True
            self.abort()
            return
        if self._in_head:
            self._head_bytes += len(data)
        failure = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            failure = Malformed("the backend wants another protocol")
        except httptools.HttpParserError as fault:
            self._reusable = False
            if not self._whole:  # else surplus bytes after a whole answer
                failure = _refusal(fault)
        pieces = self._pieces
        if pieces:
            if answer.add(pieces):
                self._transport.pause_reading()
            pieces.clear()
        if failure is not None or self._whole or self._in_head:
            self._conclude(answer, failure)

    def _conclude(self, answer: Answer, failure: Malformed | None) -> None:
        """After a read that was no mere piece of a body."""
        if failure is not None:
            self._fail(failure)
        elif self._whole:
            self._end(answer)
        elif self._head_bytes > HEAD_LIMIT_BYTES:
            self._fail(Malformed(f"the head of the answer passes {HEAD_LIMIT_BYTES} bytes"))

    def eof_received(self) -> bool:
        self._lose()
        self._transport.abort()  # a plain close would first wait for a request nobody reads
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.open:
            self._lose()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        answer, self._answer = self._answer, None
        if answer is not None:
            if answer.status and not self._framed and exc is None:
                answer.finish()
            else:
                where = "in the middle of" if answer.status else "before"
                answer.fail(UpstreamClosed(f"the backend closed the connection {where} its answer"))
        self._gone(self)
        del self._parser  # it holds our methods: no collector need undo thousands of such knots

    # ---- httptools callbacks ----

    def on_message_begin(self) -> None:
        if self._whole:
            raise ValueError("bytes after the end of the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        if 100 <= status < 200:
            return
        if not 200 <= status < 600 or parser.get_http_version() not in ("1.1", "1.0"):
            raise ValueError(f"HTTP/{parser.get_http_version()} with status {status}")
        answer = self._answer
        if answer is None:
            raise ValueError("no request is waiting")
        self._in_head = False
        self._framed, self.chunked, promise = _framing(self._headers)
        self._reusable = parser.should_keep_alive()
        if promise or self._promise:
            self._heed(promise)
        answer.begin(status)

    def on_message_complete(self) -> None:
        if self._in_head:  # an interim answer (1xx); the real one follows
            self._headers.clear()
        else:
            self._whole = True

    # ---- ends of an exchange ----

    def _end(self, answer: Answer) -> None:
        self._answer = None
        answer.finish()
        # A server that answers before it has read the request leaves the rest of it on the line.
        if self._reusable and self.open and not self._transport.get_write_buffer_size():
            self._free(self)
        else:
            self.abort()

    def _heed(self, promise: bytes) -> None:
        self._more -= 1
        if promise and promise != self._promise:
            self._promise = promise
            told = keepalive.parse(promise)
            self._idle_s = min(self._keepalive_s, told.idle_s)
            self._more = min(self._more, told.more)
        if self._more <= 0:
            self._reusable = False

    def _lose(self) -> None:
        """The backend ends it."""
        self.open = False
        answer = self._answer
        self.hung_up = answer is None or not answer.status

    def _fail(self, failure: TransportError) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.fail(failure)
        self.abort()


def _framing(headers: list[tuple[bytes, bytes]]) -> tuple[bool, bool, bytes]:
    """Whether the head says where the body ends, whether by chunks, and what it promises about
    the connection. ValueError for a body we could misread.
    """
    lengths = codings = 0
    promise = b""
    for name, value in headers:
        if name not in _TELLING:
            continue
        if name == b"content-length":
            lengths += 1
        elif name == b"transfer-encoding":
            codings += 1
            if value.lower() != b"chunked":
                raise ValueError(f"transfer-encoding {value!r}")
        elif name == b"keep-alive":
            promise = value
        elif value.lower() not in (b"identity", b""):
            raise ValueError(f"content-encoding {value!r}, although identity was asked for")
    if lengths + codings > 1:
        raise ValueError("more than one length")
    return bool(lengths or codings), bool(codings), promise


def _refusal(fault: Exception) -> Malformed:
    cause = fault.__context__ if isinstance(fault.__context__, ValueError) else fault
    return Malformed(f"the backend's answer is not acceptable HTTP: {cause}")


def _out_of_patience(answer: Answer, now: float) -> TransportError:
    if now >= answer.total_at:
        return TotalTimeout("the answer took too long as a whole")
    if answer.status:
        return IdleTimeout("the answer paused for too long")
    return FirstByteTimeout("the backend did not begin to answer in time")
