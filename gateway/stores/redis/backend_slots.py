"""Slots of backends, lent to this worker by the store: the calls of share.lua."""

import asyncio
from typing import Any, Final

import msgspec

from gateway.stores.redis import keys
from gateway.stores.redis.channel import Channels
from gateway.stores.redis.lane import Lane
from gateway.stores.redis.scripts import SHARE
from policies.slot_leases import Shared, SlotsAsked

WITHIN_S: Final = 1.0
_encode: Final = msgspec.msgpack.Encoder().encode


def share_args(asked: SlotsAsked) -> tuple[bytes]:
    return (_encode(asked),)


def shared(_asked: SlotsAsked, _now_us: int, answer: list[Any]) -> Shared:
    """What share.lua answers."""
    _, slots, rank, workers, idle, waiting, priority, counter, counters, elders = answer
    rival = (priority, counter)
    return Shared(slots, rank, workers, idle, waiting, rival, tuple(counters), tuple(elders))


class SlotStore:
    """Belongs to one event loop."""

    def __init__(self, channels: Channels) -> None:
        self.channels = channels
        self._lanes: dict[str, Lane[SlotsAsked, Shared]] = {}

    def sharing(self, asked: SlotsAsked) -> asyncio.Future[Shared]:
        """One step; on its way when this returns.

        The future may fail with StoreUnavailable: the store may have heard it all the same.
        """
        tag = keys.crew_tag(asked.backend_id)
        lane = self._lanes.get(tag)
        if lane is None:
            lane = self._lanes[tag] = Lane(
                self.channels.of(tag), SHARE, (keys.crew(tag),), shared, _unheard, WITHIN_S
            )
        return lane.put(share_args(asked), asked)


def _unheard(_asked: SlotsAsked, _answer: Shared | None) -> None:
    """The next step says everything again."""
