"""One connection to one server: its bytes, its greeting, and the queue of who waits for what."""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import hiredis

from gateway import clock
from gateway.stores.redis.address import StoreAddress

Reply = Any  # int, bytes, None, a list of those, hiredis.ReplyError or StoreUnavailable

CONNECT_WITHIN_S: Final = 2.0
_NOTHING: Final = object()

P = TypeVar("P", bound=asyncio.Protocol)


def pack(*words: Any) -> bytes:
    """One command as the store reads it; each word is bytes, text or a whole number."""
    command: bytes = hiredis.pack_command(words)
    return command


class StoreUnavailable(Exception):  # noqa: N818 (the word of the interface)
    """The store did not answer: not connected, connection lost, too slow, or broken."""


class Connection(asyncio.Protocol):
    """The bytes of one connection and the queue of who waits for them."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Callable[[Reply], None], int]] = deque()
        self.ended = asyncio.Event()
        self.run_id = ""
        self.since_us = 0  # as Link.since_us
        self.heard_us = 0  # when it said something last
        self._due: deque[Callable[[], None]] = deque()  # who has something to send this turn
        self._held: list[bytes] | None = None  # what they have sent so far, while they do
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self.waiting
        self.heard_us = clock.monotonic_us()
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _NOTHING:
                on_reply, _ = waiting.popleft()
                on_reply(reply)
        except (hiredis.ProtocolError, IndexError):
            self.abort()  # whatever this is, it does not speak our protocol

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
        while self.waiting:
            on_reply, _ = self.waiting.popleft()
            on_reply(StoreUnavailable(f"the connection to the store was lost: {exc or 'closed'}"))

    def send(self, command: bytes, on_reply: Callable[[Reply], None]) -> None:
        if self._transport is None or self._transport.is_closing():
            raise StoreUnavailable("the connection to the store is closing")
        self.waiting.append((on_reply, clock.monotonic_us()))
        if self._held is None:
            self._transport.write(command)
        else:
            self._held.append(command)

    def soon(self, send: Callable[[], None]) -> None:
        """Calls `send` when what is ready now has run. All that is sent by those called together
        leaves in one write: the transport makes a system call of each.
        """
        if not self._due:
            asyncio.get_running_loop().call_soon(self._send_due)
        self._due.append(send)

    def _send_due(self) -> None:
        due, self._due = self._due, deque()
        held: list[bytes] = []
        self._held = held
        try:
            while due:
                due.popleft()()
        finally:
            self._held = None
            if held and self._transport is not None and not self._transport.is_closing():
                self._transport.write(held[0] if len(held) == 1 else b"".join(held))
            for send in due:  # one before them failed, which is not their fault
                asyncio.get_running_loop().call_soon(send)

    async def ask(self, words: tuple[str, ...]) -> Reply:
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def answer(reply: Reply) -> None:
            if not answered.done():  # it was given up
                answered.set_result(reply)

        self.send(pack(*words), answer)
        reply = await answered
        if isinstance(reply, Exception):
            raise StoreUnavailable(f"the store refused {words[0]}: {reply}")
        return reply

    def oldest_us(self) -> int:
        """When the longest waiting call was sent; now when none waits."""
        return self.waiting[0][1] if self.waiting else clock.monotonic_us()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def dial(address: StoreAddress, protocol: Callable[[], P]) -> P:
    """A connection to the store, before any greeting. OSError when there is none."""
    loop = asyncio.get_running_loop()
    if address.path is not None:
        _, made = await loop.create_unix_connection(protocol, address.path)
        return made
    tls = ssl.create_default_context(cafile=address.ca_file) if address.tls else None
    _, made = await loop.create_connection(protocol, address.host, address.port, ssl=tls)
    return made


def greeting(address: StoreAddress) -> tuple[tuple[str, ...], ...]:
    """What a new connection says first."""
    words: list[tuple[str, ...]] = []
    if address.password is not None:
        user = (address.username,) if address.username is not None else ()
        words.append(("AUTH", *user, address.password))
    if address.database:
        words.append(("SELECT", str(address.database)))
    return (*words, ("PING",))


async def greeted(address: StoreAddress) -> Connection:
    wire = await dial(address, Connection)
    try:
        for words in greeting(address):
            await wire.ask(words)
    except BaseException:
        wire.abort()
        raise
    return wire


async def ask_once(address: StoreAddress, within_s: float, *words: str) -> Reply:
    """One answer of one server, over a connection made for it. Raises StoreUnavailable."""
    try:
        async with asyncio.timeout(within_s):
            wire = await greeted(address)
            try:
                return await wire.ask(words)
            finally:
                wire.abort()
    except (OSError, TimeoutError, hiredis.HiredisError) as fault:
        raise StoreUnavailable(f"no answer from a server of the store: {fault}") from fault
