"""The only outbound HTTP of the hot path: one request out, one Answer back, nothing lost."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from gateway.backends.answer import Answer
from gateway.backends.connection import Connection
from gateway.backends.endpoint import Endpoint, Timeouts
from gateway.backends.failures import (
    AnswerTooLarge,
    ConnectFailed,
    ConnectTimeout,
    FirstByteTimeout,
    IdleTimeout,
    Malformed,
    PoolTimeout,
    TotalTimeout,
    TransportError,
    UpstreamClosed,
)
from gateway.backends.pool import Pool, PoolStats
from gateway.backends.trust import REST_S
from gateway.failpoints import failpoint

__all__ = (
    "Answer",
    "AnswerTooLarge",
    "ConnectFailed",
    "ConnectTimeout",
    "Endpoint",
    "FirstByteTimeout",
    "IdleTimeout",
    "Malformed",
    "PoolStats",
    "PoolTimeout",
    "Timeouts",
    "TotalTimeout",
    "Transport",
    "TransportError",
    "UpstreamClosed",
)

Header = tuple[bytes, bytes]

_LF, _CR = b"\n\r"

_OURS: Final = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"upgrade",
        b"te",
        b"trailer",
        b"expect",
        b"accept-encoding",
    )
)


class Transport:
    """Belongs to one event loop. A connection is shared only within one endpoint, credential
    included, one request at a time.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        max_connections: int = 512,
        keepalive_s: float = 4.0,
        max_age_s: float = 600.0,
        rest_s: float = REST_S,
    ) -> None:
        """`max_connections` is for each endpoint. `keepalive_s` stays below the 5 s after which
        common model servers hang up: a connection lost in that race cannot be retried safely.
        A connection older than `max_age_s` is not used again, so that a moved name is noticed.
        `rest_s` is for connections of endpoints that are not trusted (yet), 0 for trust at first.
        """
        self._tls = tls
        self._max_connections = max_connections
        self._keepalive_s = keepalive_s
        self._max_age_s = max_age_s
        self._rest_s = rest_s
        self._pools: dict[Endpoint, Pool] = {}
        self._closed = False

    async def request(
        self,
        target: Endpoint,
        path: str,
        headers: Sequence[Header],
        body: bytes,
        timeouts: Timeouts,
        *,
        own: Sequence[Header] = (),
        method: str = "POST",
        before_send: Callable[[], None] | None = None,
    ) -> Answer:
        """Sends and returns when the head of the answer is in; `path` follows the base path.

        `headers` are what many requests have in common, `own` is this one's. `host`,
        `content-length` and the hop-by-hop headers are ours. `before_send` is called
        when a connection is ready, right before the first byte is written; if it raises, nothing
        was sent. Raises TransportError; a request whose first byte was written is never repeated.
        Cancelled, it leaves no connection, place or task behind.
        """
        pool = self._pools.get(target) or self._pool(target)
        head = _head(pool, method, path, headers, own, len(body))
        connection = pool.take()
        total_at = pool.now() + timeouts.total_ms / 1000
        if connection is None:
            connection = await _acquire(pool, timeouts, total_at)
        if before_send is not None:
            try:
                before_send()
            except BaseException:
                pool.give_back(connection)
                raise
        answer, patience_at = connection.send(
            head, body, timeouts.idle_ms / 1000, timeouts.first_byte_ms / 1000, total_at
        )
        failpoint("transport.written")
        try:
            await answer.begun(patience_at)
        except BaseException:
            answer.abort()
            raise
        return answer

    def stats(self, target: Endpoint) -> PoolStats:
        pool = self._pools.get(target)
        return pool.stats() if pool else PoolStats(0, 0, 0)

    def totals(self) -> PoolStats:
        """Of all endpoints together. Any thread may ask."""
        pools = [pool.stats() for pool in tuple(self._pools.values())]
        return PoolStats(
            sum(pool.open for pool in pools),
            sum(pool.idle for pool in pools),
            sum(pool.waiting for pool in pools),
        )

    async def close(self) -> None:
        """Closes every connection; answers still coming in fail, later requests are refused."""
        self._closed = True
        for pool in tuple(self._pools.values()):
            await pool.close()

    def _pool(self, target: Endpoint) -> Pool:
        if self._closed:
            raise ConnectFailed("the transport is closed")
        tls = None
        if target.tls:
            tls = self._tls = self._tls or ssl.create_default_context()
        bound, keepalive_s, max_age_s = self._max_connections, self._keepalive_s, self._max_age_s
        pool = Pool(target, tls, bound, keepalive_s, max_age_s, self._rest_s)
        self._pools[target] = pool
        return pool


async def _acquire(pool: Pool, timeouts: Timeouts, total_at: float) -> Connection:
    try:
        async with asyncio.timeout_at(total_at):
            return await pool.acquire(timeouts.pool_ms / 1000, timeouts.connect_ms / 1000)
    except TimeoutError as fault:
        raise TotalTimeout("no connection before the request's deadline", sent=False) from fault


def _head(
    pool: Pool,
    method: str,
    path: str,
    headers: Sequence[Header],
    own: Sequence[Header],
    length: int,
) -> bytes:
    """ValueError for a header that is ours to set, or for anything that could start a new line."""
    opening = _opening(method, pool.base_path, path, pool.head, tuple(headers))
    lines = b"".join([b"%b: %b\r\n" % header for header in own])
    if lines.count(_LF) != len(own) or lines.count(_CR) != len(own):
        raise ValueError("a header contains a line break")
    return b"%b%bcontent-length: %d\r\n\r\n" % (opening, lines, length)


@lru_cache(maxsize=1024)
def _opening(
    method: str, base_path: bytes, path: str, host: bytes, headers: tuple[Header, ...]
) -> bytes:
    """A head as far as it is the same for all requests of a kind."""
    pieces = [method.encode(), b" ", base_path, path.encode("ascii"), b" HTTP/1.1\r\n", host]
    for name, value in headers:
        if name.lower() in _OURS:
            raise ValueError(f"the header {name!r} is set by the transport")
        pieces += (name, b": ", value, b"\r\n")
    opening = b"".join(pieces)
    lines = len(headers) + 3
    if opening.count(b"\n") != lines or opening.count(b"\r") != lines or b"\0" in opening:
        raise ValueError("a path or header contains a line break")
    if path.count(" "):
        raise ValueError("a path contains a space")
    return opening
