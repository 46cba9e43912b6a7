"""Telling every worker that the configuration has changed, which leases are asked back, and at
which backend somebody waits.

A hint, no more: who misses a change finds out by looking; who keeps a lease is done without; who
waits looks again before long.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis

from gateway.stores.redis import keys
from gateway.stores.redis.address import StoreAddress
from gateway.stores.redis.channel import Channels, StoreUnavailable, pack, some_server
from gateway.stores.redis.connection import CONNECT_WITHIN_S, dial, greeting

LISTEN_AGAIN_S: Final = 0.5
_QUIET_S: Final = 5.0
_RECALL: Final = b"recall "
_NUDGE: Final = b"slots "

_LOG: Final = logging.getLogger(__name__)


async def publish(channels: Channels, revision: int) -> None:
    """Say that the configuration has reached this revision. A store that is down raises nothing."""
    try:
        await channels.house.ask("PUBLISH", keys.CONFIG_CHANNEL, revision)
    except StoreUnavailable as fault:
        _LOG.warning("the change was not announced, workers will find it: %s", fault)


def recall(channels: Channels, account_keys: Sequence[str]) -> None:
    """Ask everybody to give back what he has on lease of these accounts. Does not wait."""
    said = _RECALL + " ".join(account_keys).encode()
    words = pack("PUBLISH", keys.CONFIG_CHANNEL, said)  # the one channel we have leave to use
    with contextlib.suppress(StoreUnavailable):
        channels.house.send(words, lambda _: None)


def nudge(channels: Channels, backend_id: str) -> None:
    """Say that slots of this backend are waited for, or have come free. Does not wait."""
    words = pack("PUBLISH", keys.CONFIG_CHANNEL, _NUDGE + backend_id.encode())
    with contextlib.suppress(StoreUnavailable):
        channels.house.send(words, lambda _: None)


async def listen(
    address: StoreAddress,
    told: Callable[[int], None],
    recalled: Callable[[list[str]], None] = lambda _: None,
    nudged: Callable[[str], None] = lambda _: None,
) -> None:
    """Call `told(revision)` for every change, `recalled(account keys)` for every recall and
    `nudged(backend id)` where slots are waited for, until cancelled; on a connection of its own.

    After each (re)connection `told` is called with 0: something may have been missed.
    """
    while True:
        with contextlib.suppress(OSError, TimeoutError, StoreUnavailable):
            await _listen_once(await some_server(address), told, recalled, nudged)
        await asyncio.sleep(LISTEN_AGAIN_S)


async def _listen_once(
    address: StoreAddress,
    told: Callable[[int], None],
    recalled: Callable[[list[str]], None],
    nudged: Callable[[str], None],
) -> None:
    """Until the connection ends, or has been silent although asked for a sign of life."""
    async with asyncio.timeout(CONNECT_WITHIN_S):
        ear = await dial(address, lambda: _Ear(address, told, recalled, nudged))
    try:
        while ear.heard and not ear.ended.is_set():
            ear.ask()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_QUIET_S):
                    await ear.ended.wait()
    finally:
        ear.abort()


class _Ear(asyncio.Protocol):
    """One connection in the mode of a subscriber, where the store speaks unasked."""

    def __init__(
        self,
        address: StoreAddress,
        told: Callable[[int], None],
        recalled: Callable[[list[str]], None],
        nudged: Callable[[str], None],
    ) -> None:
        self.ended = asyncio.Event()
        self.heard = True
        self._address = address
        self._told = told
        self._recalled = recalled
        self._nudged = nudged
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        for words in (*greeting(self._address), ("SUBSCRIBE", keys.CONFIG_CHANNEL)):
            self._transport.write(pack(*words))

    def ask(self) -> None:
        self.heard = False
        if self._transport is not None:
            self._transport.write(pack("PING"))

    def data_received(self, data: bytes) -> None:
        self.heard = True
        try:
            self._reader.feed(data)
            while (said := self._reader.gets()) is not False:
                self._hear(said)
        except hiredis.HiredisError as fault:
            _LOG.warning("changes are not announced, only found: %s", fault)
            self.abort()

    def _hear(self, said: Any) -> None:
        match said:
            case hiredis.ReplyError():
                raise said
            case [b"subscribe", _, _]:
                self._told(0)
            case [b"message", _, bytes(words)] if words.startswith(_RECALL):
                self._recalled(words.removeprefix(_RECALL).decode(errors="replace").split(" "))
            case [b"message", _, bytes(words)] if words.startswith(_NUDGE):
                self._nudged(words.removeprefix(_NUDGE).decode(errors="replace"))
            case [b"message", _, bytes(revision)] if revision.isdigit():
                self._told(int(revision))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        self.ended.set()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
