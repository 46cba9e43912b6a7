"""A proxy that spoils connections as a test wants it: between the gateway and a store, a database
or a backend. It carries bytes and understands none of them.

`async with FaultProxy(target) as proxy:` and connect to `proxy.address`. The weather (`delay_ms`,
`bytes_per_s`, `blackhole`, `refuse`) holds for everybody until it is changed; a `Strike` waits for
its bytes, happens once, and sets its `done`.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

Address = tuple[str, int] | Path  # TCP, or a unix socket

Kind = Literal[
    "request_lost",
    "reply_lost",
    "reset",
    "half_close",
    "blackhole",
    "drop",
    "hold",
    "hold_reply",
    "notice",
]
SERVER = "server"
CLIENT = "client"
_AT_ONCE = 64 * 1024


@dataclass(eq=False)
class Strike:
    """What happens to the first bytes that fit.

    request_lost  they are not passed on, and both ends see a reset
    reply_lost    they are passed on; what is answered is swallowed, then both ends see a reset
    reset         `after_bytes` are passed on, then both ends see a reset
    half_close    `after_bytes` are passed on, then the receiver sees the end; the other way goes on
    blackhole     nothing passes on this connection any more, either way, and nobody is told
    drop          just these bytes vanish
    hold          these bytes wait until `release` is set
    hold_reply    they are passed on; what is answered waits until `release` is set
    notice        nothing at all: `on_done` may arm what comes next
    """

    kind: Kind
    towards: Literal["server", "client"] = "server"
    match: bytes = b""  # empty: any bytes; it may come in pieces
    nth: int = 1  # of those that fit
    after_bytes: int = 0  # of this direction of a connection
    connection: int | None = None  # the how-manieth since the start, from 1; None: any
    on_done: Callable[[], None] = lambda: None  # called before anybody is told anything
    done: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    def happen(self) -> None:
        self.on_done()
        self.done.set()


class FaultProxy:
    """Carries every connection to `target`; listens at `listen`, or at any free loopback port."""

    def __init__(self, target: Address, listen: Path | None = None) -> None:
        self.target = target
        self.delay_ms = 0  # each piece, each way
        self.bytes_per_s = 0  # each way of each connection; 0: no bound
        self.blackhole = False  # nothing passes, nobody is told; new connections get no answer
        self.refuse = False  # new connections are reset
        self.accepted = 0
        self.links: set[Link] = set()
        self._strikes: list[Strike] = []
        self._listen = listen
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> Address:
        if self._listen is not None:
            return self._listen
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    @property
    def port(self) -> int:
        assert isinstance(self.address, tuple)
        return self.address[1]

    async def __aenter__(self) -> Self:
        if self._listen is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        else:
            self._server = await asyncio.start_unix_server(self._accept, self._listen)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.reset()
        await asyncio.sleep(0)  # the transports learn of it

    def strike(self, strike: Strike) -> Strike:
        """Arms it: the same object, whose `done` tells that it has happened."""
        self._strikes.append(strike)
        return strike

    def calm(self) -> None:
        """Disarms whatever has not happened, and clears the weather."""
        self._strikes.clear()
        self.delay_ms = self.bytes_per_s = 0
        self.blackhole = self.refuse = False

    def reset(self) -> None:
        """Every connection that is open, both ends."""
        for link in tuple(self.links):
            link.reset()

    def half_close(self, towards: Literal["server", "client"]) -> None:
        """That end of every open connection sees the end of its input; the other way goes on."""
        for link in tuple(self.links):
            link.end(towards)

    def fitting(self, link: "Link", towards: str, seen: int, data: bytes) -> Strike | None:
        """The strike that these bytes set off, disarmed. `data` begins with the end of what came
        before; `seen` bytes have come this way with them.
        """
        for strike in self._strikes:
            if strike.towards != towards or strike.connection not in {None, link.number}:
                continue
            if strike.match not in data or seen < strike.after_bytes:
                continue
            strike.nth -= 1
            if strike.nth <= 0:
                self._strikes.remove(strike)
                return strike
        return None

    def longest_match(self) -> int:
        return max((len(strike.match) for strike in self._strikes), default=0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = Link(self, self.accepted, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.links.add(link)
        try:
            if not self.refuse:
                await link.carry()
        except OSError:
            pass  # one end is gone: so is the other
        finally:
            link.reset()
            self.links.discard(link)
            self._tasks.discard(task)


class Link:
    """One connection, both ends of it."""

    def __init__(
        self,
        proxy: FaultProxy,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.number = number
        self._proxy = proxy
        self._ends = {CLIENT: (reader, writer)}
        self._dead = False  # nothing passes any more
        self._swallowing: Strike | None = None  # the next answer

    async def carry(self) -> None:
        while self._proxy.blackhole:
            await asyncio.sleep(0.01)
        target = self._proxy.target
        if isinstance(target, Path):
            self._ends[SERVER] = await asyncio.open_unix_connection(target)
        else:
            self._ends[SERVER] = await asyncio.open_connection(*target)
        ways = [
            asyncio.ensure_future(self._pump(CLIENT, SERVER)),
            asyncio.ensure_future(self._pump(SERVER, CLIENT)),
        ]
        try:
            await asyncio.gather(*ways)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def reset(self) -> None:
        """A reset where the transport knows such a thing (TCP), else the end."""
        for _, writer in self._ends.values():
            raw = writer.get_extra_info("socket")
            if raw is not None and raw.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def end(self, towards: str) -> None:
        if towards in self._ends:
            with contextlib.suppress(OSError):
                self._ends[towards][1].write_eof()

    async def _pump(self, source: str, towards: str) -> None:
        proxy = self._proxy
        reader = self._ends[source][0]
        writer = self._ends[towards][1]
        seen, before = 0, b""
        while data := await reader.read(_AT_ONCE):
            seen += len(data)
            if await self._is_swallowed(towards):
                return
            longest = proxy.longest_match()
            strike = proxy.fitting(self, towards, seen, before + data)
            before = (before + data)[-longest:] if longest else b""
            if strike is not None:
                passed = len(data) - (seen - strike.after_bytes)
                data, goes_on = await self._struck(strike, towards, data, passed)
                if not goes_on:
                    await self._write(writer, data)
                    self._finish(strike, towards)
                    return
            if self._dead or proxy.blackhole:
                continue
            await self._write(writer, data)
        if not self._dead:
            self.end(towards)

    async def _is_swallowed(self, towards: str) -> bool:
        """Whether these bytes are the answer that gets lost; then the connection is at its end."""
        strike = self._swallowing
        if strike is None or towards != CLIENT:
            return False
        strike.happen()
        if strike.kind == "hold_reply":
            self._swallowing = None
            await strike.release.wait()
            return False
        self.reset()
        return True

    async def _struck(
        self, strike: Strike, towards: str, data: bytes, passed: int
    ) -> tuple[bytes, bool]:
        """What is still passed on of these bytes, and whether this way goes on after them."""
        match strike.kind:
            case "request_lost":
                return b"", False
            case "reset" | "half_close":
                return data[:passed] if strike.after_bytes else b"", False
            case "reply_lost" | "hold_reply":
                self._swallowing = strike
                return data, True
            case "notice":
                strike.happen()
                return data, True
            case "hold":
                strike.happen()
                await strike.release.wait()
                return data, True
            case "blackhole":
                self._dead = True
        strike.happen()
        return b"", True

    def _finish(self, strike: Strike, towards: str) -> None:
        strike.happen()
        if strike.kind == "half_close":
            self.end(towards)
        else:
            self.reset()

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        proxy = self._proxy
        if not data:
            return
        if proxy.delay_ms:
            await asyncio.sleep(proxy.delay_ms / 1000)
        while proxy.bytes_per_s and data:
            piece = max(1, proxy.bytes_per_s // 50)
            writer.write(data[:piece])
            data = data[piece:]
            await asyncio.sleep(0.02)
        writer.write(data)
        await writer.drain()
