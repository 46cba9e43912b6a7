"""One answer as it comes in: its head, then its body piece by piece, for one reader.

A reader pulls (`receive`), or lets the pieces be poured into a function of its own in the very turn
of the loop in which they come (`pour`): a stream is then relayed without waking its coroutine for
each piece. The coroutine stays the owner: it sleeps in `pour`, it is told of every end, and once it
is woken or cancelled nothing is poured any more.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from gateway.backends.failures import AnswerTooLarge, TransportError

PAUSE_ABOVE_BYTES = 64 * 1024  # what may wait here for a slow reader before the socket is paused


class Line(Protocol):
    """The connection, as far as the answer on it needs to know."""

    def resume(self) -> None: ...
    def wake_by(self, at_s: float) -> None: ...
    def abort(self) -> None: ...


class Answer:
    """Status, headers with lower-case names in wire order, and the body.

    The connection goes back to its pool by itself once the body has come in whole; whoever stops
    earlier must call `abort()`, which is harmless at any other time. One reader at a time.
    """

    __slots__ = (
        "_buffered",
        "_complete",
        "_failure",
        "_idle_s",
        "_into",
        "_line",
        "_loop",
        "_parts",
        "_paused",
        "_waiter",
        "headers",
        "patience_at",
        "status",
        "total_at",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, line: Line, idle_s: float, total_at: float
    ) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.patience_at = total_at  # loop time at which the present wait is given up, or total_at
        self.total_at = total_at
        self._loop = loop
        self._line: Line | None = line
        self._idle_s = idle_s
        self._parts: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._complete = False
        self._failure: TransportError | None = None
        self._waiter: asyncio.Future[bool] | None = None  # True: what is poured into has enough
        self._into: Callable[[bytes], bool] | None = None

    def header(self, name: bytes) -> bytes | None:
        """The first value of a lower-case name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    async def receive(self) -> bytes | None:
        """What has come in since the last call, None at the end. Raises TransportError.

        Pieces that arrived together are one piece; nothing is ever held back for more. Bytes that
        came before a failure are given before the failure is raised.
        """
        while not self._parts:
            if self._failure is not None:
                raise self._failure
            if self._complete:
                return None
            await self._wait(self._loop.time() + self._idle_s)
        return self._take()

    async def heard(self) -> None:
        """Returns when the first of the body is here, or its end; it is left for `receive`. Raises
        as that does.
        """
        while not self._parts and not self._complete:
            if self._failure is not None:
                raise self._failure
            await self._wait(self._loop.time() + self._idle_s)

    async def pour(self, into: Callable[[bytes], bool]) -> bool:
        """Hands every piece to `into` as it comes. True at the end of the body; False once `into`
        has answered False: what comes after that waits for the next call, and the backend with it
        when it is much. Raises as `receive` does, and whatever `into` raises.
        """
        while True:
            while self._parts:
                if not into(self._take()):
                    return False
            if self._failure is not None:
                raise self._failure
            if self._complete:
                return True
            self._into = into
            try:
                enough = await self._wait(self._loop.time() + self._idle_s)
            finally:
                self._into = None
            if enough:
                return False

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body. AnswerTooLarge above the limit, any TransportError when it breaks."""
        if self._complete and self._buffered <= limit_bytes:
            return self._take()
        pieces: list[bytes] = []
        size = 0
        while (piece := await self.receive()) is not None:
            size += len(piece)
            if size > limit_bytes:
                self.abort()
                raise AnswerTooLarge(f"the answer is larger than {limit_bytes} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    def abort(self) -> None:
        """Let go: closes the socket at once unless the answer is already whole."""
        line, self._line = self._line, None
        if line is not None:
            self._failure = self._failure or TransportError("the answer was abandoned")
            line.abort()

    @property
    def complete(self) -> bool:
        """The body has come in whole, read or not."""
        return self._complete

    # ---- the connection's side ----

    async def begun(self, patience_at: float) -> None:
        """Returns when the head is in; raises what went wrong before."""
        while not self.status:
            if self._failure is not None:
                raise self._failure
            await self._wait(patience_at)

    def begin(self, status: int) -> None:
        self.status = status
        self._wake()

    def add(self, pieces: list[bytes]) -> bool:
        """Takes pieces of the body; True asks the connection to stop reading for a while.

        Only the head and pieces of the body wake the reader: chunk extensions and trailers, sent
        drop by drop, must not renew anybody's patience.
        """
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        waiter = self._waiter
        if waiter is not None and not waiter.done():  # else its owner is awake, or cancelled
            into = self._into
            if into is not None:
                self._pour(piece, into, waiter)
                return False
            waiter.set_result(False)
        self._parts.append(piece)
        self._buffered += len(piece)
        if self._buffered > PAUSE_ABOVE_BYTES and not self._paused:
            self._paused = True
            return True
        return False

    def finish(self) -> None:
        if self._paused and self._line is not None:
            self._line.resume()
        self._complete = True
        self._line = None
        self._wake()

    def fail(self, failure: TransportError) -> None:
        self._line = None
        if self._failure is None:
            self._failure = failure
        self._wake()

    @property
    def waiting(self) -> bool:
        return self._waiter is not None

    def _pour(
        self, piece: bytes, into: Callable[[bytes], bool], waiter: "asyncio.Future[bool]"
    ) -> None:
        self.patience_at = self._loop.time() + self._idle_s
        try:
            more = into(piece)
        except Exception as fault:  # noqa: BLE001 - the owner's to raise, not the connection's
            waiter.set_exception(fault)
        else:
            if not more:
                waiter.set_result(True)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(False)

    async def _wait(self, patience_at: float) -> bool:
        line = self._line
        if line is None:
            raise self._failure or TransportError("the answer was abandoned")
        if patience_at > self.total_at:
            patience_at = self.total_at
        self.patience_at = patience_at
        line.wake_by(patience_at)
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiter = waiter
        try:
            return await waiter
        finally:
            self._waiter = None

    def _take(self) -> bytes:
        parts = self._parts
        piece = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        self._buffered = 0
        if self._paused:
            self._paused = False
            if self._line is not None:
                self._line.resume()
        return piece
