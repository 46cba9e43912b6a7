"""One pipelined connection to the store for the hot path, kept up by itself.

Commands go out as they come and replies come back in that order, so nobody waits for a pooled
connection; what is sent at the end of a turn of the loop (`soon`) shares one write. A lost
connection fails every waiting call at once; what the store made of them is then unknown, and the
caller of `send` must say what follows.
"""

import asyncio
import contextlib
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import hiredis

from gateway import clock
from gateway.stores.redis.address import StoreAddress
from gateway.stores.redis.connection import (
    CONNECT_WITHIN_S,
    Connection,
    Reply,
    StoreUnavailable,
    greeted,
    pack,
)

__all__ = ["Channel", "Channels", "Link", "Reply", "StoreUnavailable", "pack"]

ANSWER_WITHIN_S: Final = 10.0
FIRST_DELAY_S: Final = 0.02
LONGEST_DELAY_S: Final = 1.0
MOST_WAITING: Final = 10_000
# Less than a rebuild waits before it opens other counters (jobs.rebuild_counters.GRACE_S): whoever
# answered so shortly before is what it was.
AT_ONCE_US: Final = 400_000
SILENCE_US: Final = 10_000_000  # a peer this long without an answer is taken for dead
HOUSE: Final = "house"  # the tag of what belongs to no tenant


class Link(ABC):
    """The way to one shard. Commands sent one after another are answered in that order, as long as
    the shard stays where it is.
    """

    @property
    @abstractmethod
    def up(self) -> bool:
        """Whether a command sent now would be written."""

    @property
    @abstractmethod
    def run_id(self) -> str:
        """Which process of the store we are connected to; empty when to none."""

    @property
    @abstractmethod
    def since_us(self) -> int:
        """Since when, by the monotonic clock, we have been talking to it: what happened to the
        counters before, somewhere else, we do not know from there. 0 when to none.
        """

    @abstractmethod
    def send(self, command: bytes, on_reply: Callable[[Reply], None]) -> None:
        """Write one packed command; `on_reply` is called exactly once, with the reply or the fault.

        StoreUnavailable raised here means that nothing was written.
        """

    @abstractmethod
    def soon(self, send: Callable[[], None]) -> None:
        """Call `send` when what is ready now has run; what is sent by all that are called then
        leaves in one write, if it goes to one server.
        """

    @abstractmethod
    def suspect(self) -> None:
        """A call was not answered in time."""

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


class Channel(Link):
    """One connection; `on_up` is called each time it is (again) ready for use. `find` says where
    the server is, each time anew; without it, at `address`.
    """

    def __init__(
        self,
        address: StoreAddress,
        on_up: Callable[[], None] = lambda: None,
        find: Callable[[], Awaitable[StoreAddress]] | None = None,
    ) -> None:
        self._address = address
        self._find = find
        self._on_up = on_up
        self._wire: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    @property
    def up(self) -> bool:
        return self._wire is not None and not self._wire.ended.is_set()

    @property
    def run_id(self) -> str:
        return self._wire.run_id if self._wire is not None else ""

    @property
    def since_us(self) -> int:
        return self._wire.since_us if self._wire is not None else 0

    @property
    def waiting(self) -> int:
        """Calls sent and not answered yet."""
        return len(self._wire.waiting) if self._wire is not None else 0

    async def open(self, within_s: float = 5.0) -> None:
        """Connect, and stay connected until `close`. StoreUnavailable when it takes longer than
        `within_s`; the attempts go on all the same.
        """
        self.start()
        try:
            async with asyncio.timeout(within_s):
                await self._up.wait()
        except TimeoutError:
            raise StoreUnavailable(f"no connection to the store within {within_s:g} s") from None

    def start(self) -> None:
        """As `open`, without waiting for it."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_up())

    def drop(self) -> None:
        """Give the connection up and make another. What becomes of calls still waiting is unknown,
        and they are told so.
        """
        if self._wire is not None:
            self._wire.abort()

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
        wire = self._wire
        if wire is None:
            raise StoreUnavailable("not connected to the store")
        if len(wire.waiting) >= MOST_WAITING:
            raise StoreUnavailable(f"{MOST_WAITING} calls wait for the store already")
        wire.send(command, on_reply)

    def soon(self, send: Callable[[], None]) -> None:
        wire = self._wire
        if wire is None:
            asyncio.get_running_loop().call_soon(send)  # to be told that there is no connection
        else:
            wire.soon(send)

    def suspect(self) -> None:
        """A call was not answered in time: give the connection up if it has been silent for long.

        A store that merely stalls keeps it, so that its late answers still find their callers.
        """
        wire = self._wire
        if wire is not None and wire.oldest_us() + SILENCE_US < clock.monotonic_us():
            wire.abort()

    async def _keep_up(self) -> None:
        delay_s, last = FIRST_DELAY_S, None
        while True:
            try:
                wire = await self._connected()
            except (OSError, TimeoutError, StoreUnavailable, hiredis.HiredisError):
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
                delay_s = min(delay_s * 2, LONGEST_DELAY_S)
                continue
            delay_s = FIRST_DELAY_S
            wire.since_us = _since_us(wire, last)
            self._wire = last = wire
            self._up.set()
            self._on_up()
            await wire.ended.wait()
            self._wire = None
            self._up.clear()

    async def _connected(self) -> "Connection":
        """A connection that has said AUTH and SELECT and was believed."""
        async with asyncio.timeout(CONNECT_WITHIN_S):
            wire = await greeted(self._address if self._find is None else await self._find())
            try:
                wire.run_id = _run_id(await wire.ask(("INFO", "server")))
            except BaseException:
                wire.abort()
                raise
            return wire


def _since_us(wire: Connection, last: Connection | None) -> int:
    now_us = clock.monotonic_us()
    if last is None or last.run_id != wire.run_id or now_us - last.heard_us > AT_ONCE_US:
        return now_us
    return last.since_us


def _run_id(info: bytes) -> str:
    """Each process of a store makes up its own."""
    found = re.search(rb"^run_id:([0-9a-zA-Z]+)\r?$", info, re.MULTILINE)
    if found is None:
        raise StoreUnavailable("the store does not say which process it is (INFO server, run_id)")
    return found[1].decode()


class Shards(Protocol):
    """Where the tags are: on one server, or on those of a cluster."""

    @property
    def up(self) -> bool: ...

    @property
    def waiting(self) -> int: ...

    def of(self, tag: str) -> Link: ...

    async def open(self, within_s: float) -> None: ...

    async def close(self) -> None: ...

    async def caught_up(self) -> None: ...


class OneServer:
    """Every tag over one channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def up(self) -> bool:
        return self._channel.up

    @property
    def waiting(self) -> int:
        return self._channel.waiting

    def of(self, tag: str) -> Link:  # noqa: ARG002 (one server holds every tag)
        return self._channel

    async def open(self, within_s: float) -> None:
        await self._channel.open(within_s)

    async def close(self) -> None:
        await self._channel.close()

    async def caught_up(self) -> None:
        await self._channel.call("PING")


class Channels:
    """The channels of one process: one to each shard of the store, found by tag."""

    def __init__(self, address: StoreAddress) -> None:
        self._listeners: list[Callable[[], None]] = []
        self._shards = _shards(address, self._came_up)

    @property
    def up(self) -> bool:
        """Whether any shard can be reached."""
        return self._shards.up

    @property
    def waiting(self) -> int:
        """Calls sent and not answered yet, on all channels."""
        return self._shards.waiting

    def of(self, tag: str) -> Link:
        """The way to the shard that holds this tag, wherever that is by the time of a call."""
        return self._shards.of(tag)

    @property
    def house(self) -> Link:
        """The way to what belongs to no tenant."""
        return self._shards.of(HOUSE)

    def when_up(self, listener: Callable[[], None]) -> None:
        """Call `listener` each time a channel is ready again."""
        self._listeners.append(listener)

    async def open(self, within_s: float = 5.0) -> None:
        """Raises StoreUnavailable after `within_s`; the attempts go on until `close`."""
        await self._shards.open(within_s)

    async def close(self) -> None:
        await self._shards.close()

    async def caught_up(self) -> None:
        """Every call sent before this one is answered. Raises StoreUnavailable."""
        await self._shards.caught_up()

    def _came_up(self) -> None:
        for listener in self._listeners:
            listener()


def _shards(address: StoreAddress, on_up: Callable[[], None]) -> Shards:
    """What one server has no use for is not loaded for it."""
    if address.kind == "cluster":
        from gateway.stores.redis.cluster import Cluster  # noqa: PLC0415 - see above

        return Cluster(address, on_up)
    if address.kind == "sentinel":
        from gateway.stores.redis.sentinel import Service  # noqa: PLC0415 - see above

        return Service(address, on_up)
    return OneServer(Channel(address, on_up))


async def some_server(address: StoreAddress) -> StoreAddress:
    """One that hears what is published anywhere in the store. Raises StoreUnavailable."""
    if address.kind == "cluster":
        return address.server(*random.choice(address.seeds))  # noqa: S311 - no secret
    if address.kind == "sentinel":
        from gateway.stores.redis.sentinel import master  # noqa: PLC0415 - see above

        return (await master(address)).address
    return address
