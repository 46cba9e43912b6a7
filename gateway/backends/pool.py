"""The connections of one endpoint: a bounded number, the last used first, waiting in order.

An endpoint that has not proven itself gets its connections back after a rest only: see `trust`.
"""

import asyncio
import ssl
from collections import OrderedDict
from typing import Final

import msgspec

from gateway.backends.connection import Connection
from gateway.backends.endpoint import Endpoint
from gateway.backends.failures import ConnectFailed, ConnectTimeout, PoolTimeout
from gateway.backends.reach import connect
from gateway.backends.trust import Trust

_CLOSED: Final = "the transport is closed"
MOST_CONNECTING: Final = 128  # more at once overflow a server's queue, and then nobody gets in


class PoolStats(msgspec.Struct, frozen=True):
    """`open` counts every connection being made, in use or idle."""

    open: int
    idle: int
    waiting: int

    @property
    def busy(self) -> int:
        return self.open - self.idle


class Pool:
    """Law: a connection is in `_open` from before it is made until its socket is gone, and whoever
    took it either puts it to an end through an Answer or gives it back.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        tls: ssl.SSLContext | None,
        max_connections: int,
        keepalive_s: float,
        max_age_s: float,
        rest_s: float,
    ) -> None:
        self.head = f"host: {endpoint.authority}\r\naccept-encoding: identity\r\n".encode("ascii")
        self.base_path = endpoint.base_path.encode("ascii")
        self._endpoint = endpoint
        self._tls = tls
        self._max_connections = max_connections
        self._keepalive_s = keepalive_s
        self._max_age_s = max_age_s
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        # Thousands may end in one turn of the loop, so each must be found without a search.
        self._idle: dict[Connection, None] = {}
        self._resting: dict[Connection, asyncio.TimerHandle] = {}
        # Apart for chunked answers: common servers hang up after those only.
        self._trust = (Trust(rest_s), Trust(rest_s))
        self._unmade: set[Connection] = set()  # of the open ones
        self._waiting: OrderedDict[asyncio.Future[Connection], None] = OrderedDict()
        self._closed: asyncio.Future[None] | None = None

    def now(self) -> float:
        return self._loop.time()

    def take(self) -> Connection | None:
        """An idle connection that is fit for use, the one used last."""
        idle = self._idle
        while idle:
            connection, _ = idle.popitem()
            if connection.usable():
                return connection
            connection.abort()
        return None

    async def acquire(self, pool_s: float, connect_s: float) -> Connection:
        """A connection ready for a request; waits for a place, then makes the connection."""
        give_up_at = self._loop.time() + pool_s
        while True:
            if self._closed is not None:
                raise ConnectFailed(_CLOSED)
            connection = self.take()
            if connection is None:
                room = self._has_room()
                connection = self._place() if room else await self._wait(give_up_at)
            if not connection.made:
                await self._connect(connection, connect_s)
                return connection
            if connection.usable():
                return connection
            connection.abort()

    def give_back(self, connection: Connection) -> None:
        """A connection nothing was written to."""
        if not connection.open:
            if not connection.made:
                self._forget(connection)
            return
        if self._closed is not None:
            connection.abort()
            return
        if connection.idle_since < 0:
            connection.rest(self._loop.time())
        self._set_free(connection)

    def stats(self) -> PoolStats:
        """Any thread may ask."""
        idle = len(self._idle) + len(self._resting)
        return PoolStats(len(self._open), idle, len(self._waiting))

    async def close(self) -> None:
        """Closes every connection, busy ones too; returns when their sockets are gone."""
        if self._closed is None:
            self._closed = self._loop.create_future()
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(ConnectFailed(_CLOSED))
        self._waiting.clear()
        for connection in tuple(self._open):
            connection.close()
        if not self._open and not self._closed.done():
            self._closed.set_result(None)
        await asyncio.shield(self._closed)

    def _has_room(self) -> bool:
        return len(self._open) < self._max_connections and len(self._unmade) < MOST_CONNECTING

    def _place(self) -> Connection:
        connection = Connection(self._loop, self._keepalive_s, self._answered, self._forget)
        self._open.add(connection)
        self._unmade.add(connection)
        return connection

    def _answered(self, connection: Connection) -> None:
        """Its answer has come in whole, and it may be used again."""
        now = self._loop.time()
        if self._closed is not None or now - connection.made_at >= self._max_age_s:
            connection.abort()
            return
        connection.rest(now)
        rest_s = self._trust[connection.chunked].rest_s
        if rest_s:
            self._set_aside(connection, rest_s)
        elif not self._waiting:
            self._idle[connection] = None
        else:
            self._set_free(connection)

    def _set_free(self, connection: Connection) -> None:
        if not self._hand_over(connection):
            self._idle[connection] = None

    def _set_aside(self, connection: Connection, rest_s: float) -> None:
        if len(self._resting) < self._most_resting():
            self._resting[connection] = self._loop.call_later(rest_s, self._rested, connection)
        else:
            connection.abort()

    def _most_resting(self) -> int:
        """Some servers keep a thread for each connection, so no more than it takes to earn trust;
        in a small pool that is full none, where somebody waits for the place.
        """
        share = len(self._open) // 4
        wanted = self._waiting and len(self._open) >= self._max_connections
        return share if wanted else max(2, share)

    def _rested(self, connection: Connection) -> None:
        del self._resting[connection]
        if connection.usable():
            self._trust[connection.chunked].kept(self._loop.time())
            self._set_free(connection)
        else:
            connection.abort()

    def _end_a_rest(self) -> None:
        if len(self._resting) > self._most_resting():
            connection, timer = self._resting.popitem()
            timer.cancel()
            connection.abort()

    def _doubt(self, connection: Connection) -> None:
        now = self._loop.time()
        trust = self._trust[connection.chunked]
        if trust.closed(now - connection.idle_since, now):  # others may be closing just now
            for other in tuple(self._idle):
                if other.chunked == connection.chunked:
                    del self._idle[other]
                    self._set_aside(other, trust.rest_s)

    def _forget(self, connection: Connection) -> None:
        if connection not in self._open:
            return
        self._open.discard(connection)
        self._unmade.discard(connection)
        self._idle.pop(connection, None)
        if timer := self._resting.pop(connection, None):
            timer.cancel()
        if connection.hung_up:
            self._doubt(connection)
        if self._closed is not None:
            if not self._open and not self._closed.done():
                self._closed.set_result(None)
        else:
            self._offer_place()

    def _offer_place(self) -> None:
        """To the one who waits longest."""
        if self._waiting and self._has_room():
            place = self._place()
            if not self._hand_over(place):
                self._open.discard(place)
                self._unmade.discard(place)

    def _hand_over(self, connection: Connection) -> bool:
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    async def _wait(self, give_up_at: float) -> Connection:
        waiter: asyncio.Future[Connection] = self._loop.create_future()
        self._waiting[waiter] = None
        self._end_a_rest()
        alarm = self._loop.call_at(give_up_at, _give_up, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.give_back(waiter.result())  # it was handed over in the same turn
            raise
        finally:
            alarm.cancel()
            self._waiting.pop(waiter, None)

    async def _connect(self, connection: Connection, connect_s: float) -> None:
        try:
            async with asyncio.timeout(connect_s):
                await connect(self._loop, self._endpoint, self._tls, connection)
        except BaseException as fault:
            connection.abort()
            self._forget(connection)
            if isinstance(fault, TimeoutError):
                raise ConnectTimeout(f"no connection within {connect_s:g} s") from fault
            if isinstance(fault, OSError):  # ssl.SSLError is one
                raise ConnectFailed(f"no connection: {fault}") from fault
            raise
        self._unmade.discard(connection)
        self._offer_place()
        if not connection.open:
            raise ConnectFailed("the backend closed the connection at once")
        if self._closed is not None:
            connection.abort()
            raise ConnectFailed(_CLOSED)


def _give_up(waiter: asyncio.Future[Connection]) -> None:
    if not waiter.done():
        waiter.set_exception(PoolTimeout("no connection came free in time"))
