"""One pipelined connection to the store for the hot path, kept up by itself.

Commands go out as they come and replies come back in that order, so nobody waits for a pooled
connection and a whole event-loop turn shares one write. A lost connection fails every waiting
call at once; what the store made of them is then unknown, and the caller of `send` must say what
follows.
"""

import asyncio
import contextlib
import random
import re
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
ANSWER_WITHIN_S: Final = 10.0
FIRST_DELAY_S: Final = 0.02
LONGEST_DELAY_S: Final = 1.0
MOST_WAITING: Final = 10_000
SILENCE_US: Final = 10_000_000  # a peer this long without an answer is taken for dead
_NOTHING: Final = object()


P = TypeVar("P", bound=asyncio.Protocol)


def pack(*words: Any) -> bytes:
    """One command as the store reads it; each word is bytes, text or a whole number."""
    command: bytes = hiredis.pack_command(words)
    return command


class StoreUnavailable(Exception):  # noqa: N818 (the word of the interface)
    """The store did not answer: not connected, connection lost, too slow, or broken."""


class Channel:
    """One connection; `on_up` is called each time it is (again) ready for use."""

    def __init__(self, address: StoreAddress, on_up: Callable[[], None] = lambda: None) -> None:
        self._address = address
        self._on_up = on_up
        self._wire: _Wire | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    @property
    def up(self) -> bool:
        return self._wire is not None and not self._wire.ended.is_set()

    @property
    def run_id(self) -> str:
        """Which process of the store we are connected to; empty when to none."""
        return self._wire.run_id if self._wire is not None else ""

    @property
    def waiting(self) -> int:
        """Calls sent and not answered yet."""
        return len(self._wire.waiting) if self._wire is not None else 0

    async def open(self, within_s: float = 5.0) -> None:
        """Connect, and stay connected until `close`. StoreUnavailable when it takes longer than
        `within_s`; the attempts go on all the same.
        """
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_up())
        try:
            async with asyncio.timeout(within_s):
                await self._up.wait()
        except TimeoutError:
            raise StoreUnavailable(f"no connection to the store within {within_s:g} s") from None

    async def close(self) -> None:
        """Drop the connection; calls still waiting fail."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        if self._wire is not None:
            self._wire.abort()
            await self._wire.ended.wait()
            self._wire = None

    def send(self, command: bytes, on_reply: Callable[[Reply], None]) -> None:
        """Write one packed command; `on_reply` is called exactly once, with the reply or the fault.

        StoreUnavailable raised here means that nothing was written.
        """
        wire = self._wire
        if wire is None:
            raise StoreUnavailable("not connected to the store")
        if len(wire.waiting) >= MOST_WAITING:
            raise StoreUnavailable(f"{MOST_WAITING} calls wait for the store already")
        wire.send(command, on_reply)

    async def call(self, *words: str | bytes | int) -> Reply:
        """Send one command and wait for its reply. Raises hiredis.ReplyError, StoreUnavailable."""
        caller: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def answer(reply: Reply) -> None:
            if caller.done():
                return
            if isinstance(reply, Exception):
                caller.set_exception(reply)
            else:
                caller.set_result(reply)

        self.send(pack(*words), answer)
        return await caller

    async def ask(self, *words: str | bytes | int) -> Reply:
        """As `call`, for what is not hot: whatever keeps the reply away is StoreUnavailable."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await self.call(*words)
        except TimeoutError as fault:
            raise StoreUnavailable("the store did not answer in time") from fault
        except hiredis.ReplyError as fault:
            raise StoreUnavailable(f"the store refused {words[0]!s}: {fault}") from fault

    def suspect(self) -> None:
        """A call was not answered in time: give the connection up if it has been silent for long.

        A store that merely stalls keeps it, so that its late answers still find their callers.
        """
        wire = self._wire
        if wire is not None and wire.oldest_us() + SILENCE_US < clock.monotonic_us():
            wire.abort()

    async def _keep_up(self) -> None:
        delay_s = FIRST_DELAY_S
        while True:
            try:
                wire = await self._connected()
            except (OSError, TimeoutError, StoreUnavailable, hiredis.HiredisError):
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
                delay_s = min(delay_s * 2, LONGEST_DELAY_S)
                continue
            delay_s = FIRST_DELAY_S
            self._wire = wire
            self._up.set()
            self._on_up()
            await wire.ended.wait()
            self._wire = None
            self._up.clear()

    async def _connected(self) -> "_Wire":
        """A connection that has said AUTH and SELECT and was believed."""
        async with asyncio.timeout(CONNECT_WITHIN_S):
            wire = await dial(self._address, _Wire)
            try:
                for words in greeting(self._address):
                    await wire.ask(words)
                wire.run_id = _run_id(await wire.ask(("INFO", "server")))
            except BaseException:
                wire.abort()
                raise
            return wire


class _Wire(asyncio.Protocol):
    """The bytes of one connection and the queue of who waits for them."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Callable[[Reply], None], int]] = deque()
        self.ended = asyncio.Event()
        self.run_id = ""
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
        self._transport.write(command)

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


def _run_id(info: bytes) -> str:
    """Each process of a store makes up its own."""
    found = re.search(rb"^run_id:([0-9a-zA-Z]+)\r?$", info, re.MULTILINE)
    if found is None:
        raise StoreUnavailable("the store does not say which process it is (INFO server, run_id)")
    return found[1].decode()


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


class Channels:
    """The channels of one process: one to each shard of the store, found by tag."""

    def __init__(self, address: StoreAddress) -> None:
        self._listeners: list[Callable[[], None]] = []
        self._one = Channel(address, self._came_up)

    @property
    def up(self) -> bool:
        return self._one.up

    @property
    def waiting(self) -> int:
        """Calls sent and not answered yet, on all channels."""
        return self._one.waiting

    def of(self, tag: str) -> Channel:  # noqa: ARG002 (one server holds every tag)
        """The channel to the shard that holds this tag."""
        return self._one

    @property
    def house(self) -> Channel:
        """The channel to what belongs to no tenant."""
        return self._one

    def when_up(self, listener: Callable[[], None]) -> None:
        """Call `listener` each time a channel is ready again."""
        self._listeners.append(listener)

    async def open(self, within_s: float = 5.0) -> None:
        """Raises StoreUnavailable after `within_s`; the attempts go on until `close`."""
        await self._one.open(within_s)

    async def close(self) -> None:
        await self._one.close()

    async def caught_up(self) -> None:
        """Every call sent before this one is answered. Raises StoreUnavailable."""
        await self._one.call("PING")

    def _came_up(self) -> None:
        for listener in self._listeners:
            listener()
