"""The channel to a service behind Sentinel: to its master, whichever server that is.

Sentinels that were cut off name the master of before; each names the epoch of its knowledge too,
and the latest holds. A master that was replaced may have carried out what it was sent: its
connection is given up, and its calls are told that their outcome is unknown.
"""

import asyncio
import contextlib
from collections.abc import Callable
from itertools import cycle
from typing import Final

import msgspec

from gateway.stores.redis.address import StoreAddress
from gateway.stores.redis.channel import Channel, OneServer, StoreUnavailable
from gateway.stores.redis.connection import ask_once

LOOK_EVERY_S: Final = 1.0
ANSWER_WITHIN_S: Final = 0.5


class Master(msgspec.Struct, frozen=True):
    """Where the master is since `epoch`."""

    epoch: int
    address: StoreAddress


async def master(service: StoreAddress) -> Master:
    """The latest that any sentinel knows of, after it has said that it is master.

    Raises StoreUnavailable.
    """
    answers = await asyncio.gather(*(_told(service, each) for each in service.sentinels()))
    known = [answer for answer in answers if answer is not None]
    if not known:
        raise StoreUnavailable("no sentinel says where the store's master is")
    latest = max(known, key=lambda one: one.epoch)
    role = await ask_once(latest.address, ANSWER_WITHIN_S, "ROLE")
    if role[0] != b"master":
        raise StoreUnavailable("the server that the sentinels name is not master yet")
    return latest


async def _told(service: StoreAddress, sentinel: StoreAddress) -> Master | None:
    """What one sentinel knows; None: it does not answer, or knows no such service."""
    try:
        answer = await ask_once(sentinel, ANSWER_WITHIN_S, "SENTINEL", "MASTER", service.service)
        facts = dict(zip(answer[::2], answer[1::2], strict=True))
        where = service.server(facts[b"ip"].decode(), int(facts[b"port"]))
        return Master(int(facts[b"config-epoch"]), where)
    except (StoreUnavailable, KeyError, ValueError, TypeError):
        return None


class Service(OneServer):
    """Every tag on the service's master of the time."""

    def __init__(self, address: StoreAddress, on_up: Callable[[], None]) -> None:
        self._service = address
        self._master: Master | None = None
        self._watch: asyncio.Task[None] | None = None
        super().__init__(Channel(address, on_up, self._find))

    async def open(self, within_s: float) -> None:
        if self._watch is None:
            self._watch = asyncio.create_task(self._keep_watching())
        await super().open(within_s)

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        await super().close()

    async def _find(self) -> StoreAddress:
        self._master = await master(self._service)
        return self._master.address

    async def _keep_watching(self) -> None:
        """A master that hangs, or is cut off from the others only, closes no connection."""
        for sentinel in cycle(self._service.sentinels()):
            await asyncio.sleep(LOOK_EVERY_S)
            told, known = await _told(self._service, sentinel), self._master
            if told is None or known is None or not self.up:
                continue
            if told.epoch > known.epoch and told.address != known.address:
                self._channel.drop()
