"""What a client may send, and how long it may take.

The bounds hold before anybody knows who the client is. A head has 64 KiB, 100 headers and 10 s; a
body may pause for 30 s and must bring 1 KiB a second after that; what follows an answer, be it the
rest of a body or blank lines, has 10 s. A request that arrives in one piece, as nearly all do,
meets a few comparisons and no timer. How messages are framed is the parser's to judge (llhttp).
"""

from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import httptools

from gateway.app.claims import Fault, fault_of
from gateway.app.exchange import Exchange
from gateway.app.line import Line
from gateway.dataplane.outlet import EXTENSION

HEAD_BYTES: Final = 64 * 1024
MOST_HEADERS: Final = 100

_TOO_LARGE: Final = (
    431,
    f"the head has more than {HEAD_BYTES} bytes or {MOST_HEADERS} headers; send less",
)
_TOO_SLOW: Final = (408, "the request did not arrive in time; send it without pauses")
_NOT_HTTP: Final = (400, "Invalid HTTP request received.")
_COMPLETE, _HEAD, _BODY, _REST, _DEAF = range(5)  # _REST: its request has been answered already
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding"))
_FRAMING_BYTES: Final = len("  HTTP/1.1\r\n\r\n")


class Intake(Line):
    """One client's connection, as far as what comes in goes."""

    head_seconds = 10.0
    pause_seconds = 30.0
    floor_bytes = 1024  # a second, once a body has come for longer than the pause it may make

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parser: Any = httptools.HttpRequestParser(self)
        self._framing: bytes | None = None  # of a request that asks for another protocol
        # Or a request behind one that says `connection: close` would spoil the answer to that one.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._wants_continue = False
        self._reading = _COMPLETE  # the part of a request that the parser is in
        self._phase = _COMPLETE  # the same, after the last piece that came
        self._phase_of: Exchange | None = None  # the request it is about; of a head, the one before
        self._since = 0.0  # loop time the phase began
        self._latest = 0.0  # loop time the last piece came
        self._phase_bytes = 0  # after its first piece
        self._barren_bytes = 0  # of these, in a row that belonged to no body
        self._fault: Fault | None = None  # of a head that the parser would have taken

    # ---- asyncio.Protocol ----

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        if phase == _BODY or (phase == _COMPLETE and len(data) <= HEAD_BYTES):
            self._take(data)
            return
        while data and self._phase != _DEAF and not self.transport.is_closing():
            self._take(data[:HEAD_BYTES])
            data = data[HEAD_BYTES:]

    def _take(self, data: bytes) -> None:
        self._barren_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as wish:
            self._stay(data[wish.args[0] :])
            return
        except httptools.HttpParserError:
            if self._reading == _DEAF:
                self._phase = _DEAF
            else:
                self._refuse()
            return
        reading, latest = self._reading, self.latest
        if reading == _HEAD or latest is None:
            self._wait(_HEAD, len(data))
        elif latest.complete:
            self._wait(_REST, len(data))
        elif reading == _BODY:
            self._wait(_BODY, len(data))
        else:
            self._phase = _COMPLETE

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._phase = _DEAF
        del self._parser  # it holds our methods: the knot is undone here

    # ---- httptools callbacks ----

    def on_message_begin(self) -> None:
        self._reading = _HEAD
        self._url = b""
        self._headers = []
        self._wants_continue = False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._wants_continue = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Raises for a head that is refused: the parser stops, and `_refuse` tells why."""
        parser, headers = self._parser, self._headers
        in_pieces = self._phase != _COMPLETE
        if len(headers) > MOST_HEADERS or (in_pieces and self._head_bytes() > HEAD_BYTES):
            self._fault = _TOO_LARGE
            raise ValueError("the head is too large")
        self._headers = []  # for trailers, which are no headers: nobody reads them
        if parser.should_upgrade():
            self._framing = b"".join(b"%b: %b\r\n" % h for h in headers if h[0].lower() in _FRAMING)
        method, version = parser.get_method(), parser.get_http_version()
        old = version != "1.1"
        self._fault = fault_of(headers, old=old)
        if self._fault is not None:
            raise ValueError("the head is unclear")
        exchange = Exchange(
            self,
            method,
            old,
            not old and parser.should_keep_alive(),
            self._wants_continue and not old,
        )
        path, raw_path, query = _target(self._url)
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "method": method.decode("ascii"),
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
            "state": {},
            "extensions": {EXTENSION: exchange.at_once},
        }
        self._reading = _BODY
        self.take(exchange, scope)

    def on_body(self, body: bytes) -> None:
        self._barren_bytes = 0
        if self.latest is not None:
            self.latest.feed(body)

    def on_message_complete(self) -> None:
        if self._framing is not None:
            return  # the parser skips the body of whoever asks for another protocol
        self._reading = _COMPLETE
        if self.latest is not None:
            self.latest.end()

    # ---- refusals ----

    def _refuse(self) -> None:
        """What the parser did not take, or we did not."""
        self._turn_away(self._fault or _NOT_HTTP)

    def _turn_away(self, fault: Fault) -> None:
        """Nothing more is heard; where others wait for their answers, they get them first."""
        between = self._reading == _COMPLETE and self.answering is not None
        headless = between or self._reading == _HEAD
        self._reading = self._phase = _DEAF
        self.turn_away(*fault, headless=headless)

    def _stay(self, rest: bytes) -> None:
        """Whoever would like another protocol is heard and answered in this one, as if nobody had
        asked, and that is the end of it: of what follows, nobody knows in which it was said.
        """
        framing, self._framing = self._framing, None
        if self.latest is None or framing is None:
            raise RuntimeError("a wish without a request")
        self.latest.keep_alive = False
        self._parser = httptools.HttpRequestParser(_Body(self))
        self._take(b"POST / HTTP/1.1\r\n%b\r\n%b" % (framing, rest))

    def deafen(self) -> None:
        """What comes after this request is not heard."""
        self.on_message_complete()
        self._reading = _DEAF

    # ---- how far the request has come ----

    def _head_bytes(self) -> int:
        sizes = sum(len(name) + len(value) + 4 for name, value in self._headers)
        return len(self._parser.get_method()) + len(self._url) + _FRAMING_BYTES + sizes

    def _wait(self, phase: int, size: int) -> None:
        """For more of what has begun; after each piece of a request that did not come in one."""
        self._latest = self.loop.time()
        if phase != self._phase or self.latest is not self._phase_of:
            self._phase, self._phase_of = phase, self.latest
            self._since, self._phase_bytes, self._barren_bytes = self._latest, 0, 0
        else:
            self._phase_bytes += size
        if self._barren_bytes > HEAD_BYTES or len(self._headers) > MOST_HEADERS:
            self._turn_away(_TOO_LARGE)
        else:
            self.alarm.by(self._due())

    def _due(self) -> float:
        """The loop time at which the client has had its time, unless more comes."""
        if self._phase != _BODY:
            return self._since + self.head_seconds
        earned = self._phase_bytes / self.floor_bytes
        return self.pause_seconds + min(self._latest, self._since + earned)

    def ring(self) -> None:
        if self._phase in (_COMPLETE, _DEAF):
            super().ring()
            return
        if self.transport.is_closing():
            return
        now = self.loop.time()
        if self.reading_paused:  # it is the client who waits
            self._since = self._latest = now
            self._phase_bytes = 0
        if now < self._due():
            self.alarm.by(self._due())
        elif self._phase == _REST:
            self.transport.close()
        else:
            self._turn_away(_TOO_SLOW)


class _Body:
    """The last request on a connection, of which the parser has told everything but the body."""

    __slots__ = ("_intake", "on_body")

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.on_body = intake.on_body

    def on_message_complete(self) -> None:
        """Raises: the parser stops."""
        self._intake.deafen()
        raise ValueError("the request is whole")


@lru_cache(maxsize=64)
def _target(url: bytes) -> tuple[str, bytes, bytes]:
    """The path, the path as it was sent, and the query."""
    parsed = httptools.parse_url(url)
    raw_path = parsed.path
    path = raw_path.decode("ascii")
    return unquote(path) if "%" in path else path, raw_path, parsed.query or b""
