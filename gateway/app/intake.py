"""What a client may send, and how long it may take: the bounds that uvicorn's protocol leaves out.

They hold before anybody knows who the client is. A head has 64 KiB, 100 headers and 10 s; a body
may pause for 30 s and must bring 1 KiB a second after that; what follows an answer, be it the rest
of a body or blank lines, has 10 s. A request that arrives in one piece, as nearly all do, meets a
few comparisons and no timer.
"""

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.errors import openai_error

HEAD_BYTES: Final = 64 * 1024
MOST_HEADERS: Final = 100

_TOO_LARGE: Final = (
    f"the head of the request is larger than {HEAD_BYTES} bytes or has more than {MOST_HEADERS} "
    "headers; send less"
)
_TOO_SLOW: Final = "the request did not arrive in time; send it without pauses"
_COMPLETE, _HEAD, _BODY, _REST = range(4)  # _REST: its request has been answered already
_FRAMING_BYTES: Final = len("  HTTP/1.1\r\n\r\n")
_feed: Final = HttpToolsProtocol.data_received
_headers_complete: Final = HttpToolsProtocol.on_headers_complete
_body: Final = HttpToolsProtocol.on_body


class Intake(HttpToolsProtocol):
    """One client's connection, as far as what comes in goes."""

    head_seconds = 10.0
    pause_seconds = 30.0
    floor_bytes = 1024  # a second, once a body has come for longer than the pause it may make

    _phase = _COMPLETE  # of what has come in so far
    _phase_scope: object = None  # the request it is about
    _since = 0.0  # loop time the phase began
    _latest = 0.0  # loop time the last piece came
    _phase_bytes = 0  # after its first piece
    _barren_bytes = 0  # of these, in a row that belonged to no body
    _too_large = False
    _wake: asyncio.TimerHandle | None = None
    _wake_at = 0.0

    # ---- asyncio.Protocol ----

    def data_received(self, data: bytes) -> None:
        before = self._phase
        if before == _BODY or (before == _COMPLETE and len(data) <= HEAD_BYTES):
            self._take(data)
            return
        while data and not self.transport.is_closing():
            self._take(data[:HEAD_BYTES])
            data = data[HEAD_BYTES:]

    def _take(self, data: bytes) -> None:
        self._barren_bytes += len(data)
        _feed(self, data)
        cycle = self.cycle
        if cycle is None or cycle.scope is not self.scope:
            self._wait(_HEAD, len(data))
        elif cycle.response_complete:
            self._wait(_REST, len(data))
        elif cycle.more_body:
            self._wait(_BODY, len(data))
        else:
            self._phase = _COMPLETE

    def connection_lost(self, exc: Exception | None) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        super().connection_lost(exc)

    # ---- httptools callbacks ----

    def on_headers_complete(self) -> None:
        in_pieces = self._phase != _COMPLETE
        if len(self.headers) > MOST_HEADERS or (in_pieces and self._head_bytes() > HEAD_BYTES):
            self._too_large = True
            raise ValueError(_TOO_LARGE)  # the parser stops, and send_400_response is called
        _headers_complete(self)
        self.headers = []  # for trailers, which are no headers: nobody reads them

    def on_body(self, body: bytes) -> None:
        self._barren_bytes = 0
        _body(self, body)

    # ---- refusals ----

    def send_400_response(self, msg: str) -> None:
        """What the parser did not take."""
        if self._too_large:
            self._turn_away(431, _TOO_LARGE)
        else:
            self._turn_away(400, msg)

    def _turn_away(self, status: int, why: str) -> None:
        """Closes; says why where nobody could take it for the answer to another request."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        own = cycle is not None and cycle.scope is self.scope and not self.pipeline
        if cycle is None or cycle.response_complete or (own and not cycle.response_started):
            body = openai_error(why, "invalid_request_error", None, "invalid_request")
            self.transport.write(
                STATUS_LINE[status] + b"content-type: application/json\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )
        self.transport.close()

    # ---- how far the request has come ----

    def _head_bytes(self) -> int:
        sizes = sum(len(name) + len(value) + 4 for name, value in self.headers)
        return len(self.parser.get_method()) + len(self.url) + _FRAMING_BYTES + sizes

    def _wait(self, phase: int, size: int) -> None:
        """For more of what has begun; after each piece of a request that did not come in one."""
        self._latest = self.loop.time()
        if phase != self._phase or self.scope is not self._phase_scope:
            self._phase, self._phase_scope = phase, self.scope
            self._since, self._phase_bytes, self._barren_bytes = self._latest, 0, 0
        else:
            self._phase_bytes += size
            if self._barren_bytes > HEAD_BYTES:
                self._turn_away(431, _TOO_LARGE)
        if len(self.headers or ()) > MOST_HEADERS:
            self._turn_away(431, _TOO_LARGE)
        self._wake_by(self._due())

    def _due(self) -> float:
        """The loop time at which the client has had its time, unless more comes."""
        if self._phase != _BODY:
            return self._since + self.head_seconds
        earned = self._phase_bytes / self.floor_bytes
        return self.pause_seconds + min(self._latest, self._since + earned)

    def _wake_by(self, at: float) -> None:
        """The alarm is only ever moved forward, so that few pieces touch a timer."""
        if self._wake is not None:
            if self._wake_at <= at:
                return
            self._wake.cancel()
        self._wake_at = at
        self._wake = self.loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._wake = None
        if self._phase == _COMPLETE or self.transport.is_closing():
            return
        now = self.loop.time()
        if self.flow.read_paused:  # it is the client who waits
            self._since = self._latest = now
            self._phase_bytes = 0
        if now < self._due():
            self._wake_by(self._due())
        elif self._phase != _HEAD and self.cycle.response_complete:
            self.transport.close()
        else:
            self._turn_away(408, _TOO_SLOW)
