"""A client's connection: whose turn it is on it, what waits on it, and when it is closed.

Requests that a client sends ahead are answered one after the other, in their order.
"""

import asyncio
from collections import deque
from typing import Any, Final

import uvicorn
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from gateway.app.alarm import Alarm
from gateway.app.answer_head import STATUS_LINES, Headers
from gateway.app.exchange import Exchange
from gateway.errors import openai_error

MOST_AHEAD: Final = 256  # requests that wait for the answer to another
_READ_AHEAD: Final = 4  # waiting, nothing is read any more: until then a hang-up is noticed


class Line(asyncio.Protocol):
    """Made by uvicorn's server for each connection; what comes in on it is read in `Intake`."""

    transport: asyncio.Transport

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002 - we have no lifespan that could put something there
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.loop = _loop or asyncio.get_running_loop()
        self.app = config.loaded_app
        self.alarm = Alarm(self.loop, self.ring)
        self.connections: set[Any] = server_state.connections
        self.tasks = server_state.tasks
        self.behind: asyncio.Event | None = None
        self.reading_paused = False
        self.latest: Exchange | None = None  # whose head came last
        self.answering: Exchange | None = None
        self.idle_since = self.loop.time()
        self.keep_alive_seconds = config.timeout_keep_alive
        self._state = server_state
        self._ahead: deque[tuple[Exchange, dict[str, Any]]] = deque()
        self._leaving = False
        self._farewell: bytes | None = None  # to be said after the answers to what came whole

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connections.add(self)
        self.transport = transport  # type: ignore[assignment] # uvloop's does not inherit from it
        wire: Any = transport
        self.server = get_local_addr(wire)
        self.client = get_remote_addr(wire)
        self.scheme = "https" if is_ssl(wire) else "http"

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.connections.discard(self)
        for exchange in (self.answering, self.latest):
            if exchange is not None:
                exchange.lose()
        self._ahead.clear()
        self.alarm.stop()
        self.answering = self.latest = None
        self.resume_writing()

    def eof_received(self) -> None:
        """A client that says no more is gone: half a connection is no connection."""

    def pause_writing(self) -> None:
        if self.behind is None:
            self.behind = asyncio.Event()

    def resume_writing(self) -> None:
        behind, self.behind = self.behind, None
        if behind is not None:
            behind.set()

    # ---- the server's side ----

    def shutdown(self) -> None:
        """Closes once nothing is being answered."""
        self._leaving = True
        if self.answering is None:
            self.transport.close()
        else:
            self.answering.keep_alive = False

    def give_up(self) -> None:
        """Cancels a request that has not come whole: there has been time enough, and whoever
        handles it says why.
        """
        waits = self.answering
        if waits is None or waits.started or not waits.more_body or waits.task is None:
            return
        waits.task.cancel()

    # ---- an exchange's side ----

    def headers(self, own: Headers) -> Headers:
        """Of an answer: those that the server says on all of them, and its own."""
        on_all = self._state.default_headers
        return [*on_all, *own] if on_all else own

    def pause_reading(self) -> None:
        if not self.reading_paused:
            self.reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.reading_paused and len(self._ahead) < _READ_AHEAD and not self._full():
            self.reading_paused = False
            self.transport.resume_reading()

    def _full(self) -> bool:
        """Whether the request that comes in waits its turn, with as much as is kept of a body."""
        return self.latest is not self.answering and self.latest is not None and self.latest.full

    def answered(self) -> None:
        """The answer in hand is whole: the turn is the next one's."""
        self._state.total_requests += 1
        self.answering = None
        if self.transport.is_closing():
            return
        if self._ahead:
            exchange, scope = self._ahead.popleft()
            self.resume_reading()
            self._begin(exchange, scope)
            return
        if self._farewell is not None:
            self.transport.write(self._farewell)
            self.transport.close()
            return
        self.resume_reading()
        self.idle_since = self.loop.time()
        self.alarm.by(self.idle_since + self.keep_alive_seconds)

    def ring(self) -> None:
        """Closes a connection that has been idle for long enough."""
        if self.answering is None and not self.transport.is_closing():
            until = self.idle_since + self.keep_alive_seconds
            if self.loop.time() >= until:
                self.transport.close()
            else:
                self.alarm.by(until)

    # ---- requests ----

    def take(self, exchange: Exchange, scope: dict[str, Any]) -> None:
        """A request whose head is whole."""
        self.latest = exchange
        if self._leaving:
            exchange.keep_alive = False
        if self.answering is None:
            self._begin(exchange, scope)
            return
        self._ahead.append((exchange, scope))
        if len(self._ahead) >= _READ_AHEAD:
            self.pause_reading()
        if len(self._ahead) > MOST_AHEAD:
            self.transport.close()  # too many for anybody who means to read the answers

    def _begin(self, exchange: Exchange, scope: dict[str, Any]) -> None:
        self.answering = exchange
        exchange.task = task = self.loop.create_task(exchange.run(self.app, scope))
        self.tasks.add(task)

    def turn_away(self, status: int, why: str, *, headless: bool = False) -> None:
        """Closes; says why where nobody could take it for the answer to another request, or for a
        second one to the same. Requests that came whole before this one have their answers first.
        Headless: it is no exchange yet.
        """
        if self.transport.is_closing():
            return
        answering, at_fault = self.answering, None if headless else self.latest
        if answering is not None and answering is not at_fault:
            self._farewell = _refusal(status, why)
            if at_fault is not None:  # it has no turn any more
                self._ahead.pop()
                at_fault.lose()
                self.latest = answering
            return
        if at_fault is None or (answering is not None and not answering.started):
            self.transport.write(_refusal(status, why))
            if answering is not None:
                answering.lose()  # it has its answer
        self.transport.close()


def _refusal(status: int, why: str) -> bytes:
    body = openai_error(why, "invalid_request_error", None, "invalid_request")
    head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    return STATUS_LINES[status] + head % len(body) + body
