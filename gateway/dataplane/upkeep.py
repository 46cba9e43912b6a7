"""What a worker does beside serving: its holds kept alive, waiting settlements sent again."""

import asyncio
import logging
from typing import Final

from gateway.dataplane.admit import HOLD_TTL_MS
from gateway.dataplane.request import DataPlane
from gateway.dataplane.settle import Settler
from gateway.stores.redis.holds import HoldStore, StoreUnavailable

EXTEND_EVERY_S: Final = 8.0  # a third of a hold's life: two failures in a row lose nothing
RETRY_EVERY_S: Final = 0.5

_LOG: Final = logging.getLogger(__name__)


async def keep_holds_alive(plane: DataPlane, holds: HoldStore) -> None:
    """Extends every live hold, tag by tag, until cancelled."""
    while True:
        await asyncio.sleep(EXTEND_EVERY_S)
        by_tag: dict[str, list[str]] = {}
        for request_id, live in plane.in_flight.items():
            by_tag.setdefault(live.tag, []).append(request_id)
        for tag, ids in by_tag.items():
            try:
                await holds.extend(tag, ids, HOLD_TTL_MS)
            except StoreUnavailable as fault:
                _LOG.warning("holds could not be extended: %s", fault)


async def settle_what_waits(settler: Settler) -> None:
    """Sends again what the store has not confirmed, until cancelled."""
    while True:
        await asyncio.sleep(RETRY_EVERY_S)
        if settler.waiting:
            await settler.retry_waiting()
