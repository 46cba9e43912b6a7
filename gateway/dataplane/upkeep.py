"""What a worker does beside serving: its holds kept alive, waiting settlements sent again."""

import asyncio
import logging
from typing import Final

from gateway.dataplane.admit import HOLD_TTL_MS
from gateway.dataplane.request import DataPlane
from gateway.dataplane.settle import Settler
from gateway.failpoints import failpoint
from gateway.stores.redis.holds import HoldStore, StoreUnavailable

EXTEND_EVERY_S: Final = 8.0  # a third of a hold's life: two failures in a row lose nothing
RETRY_EVERY_S: Final = 0.5
_SLICES: Final = 32
_SLICE_S: Final = EXTEND_EVERY_S / _SLICES

_LOG: Final = logging.getLogger(__name__)


async def keep_holds_alive(plane: DataPlane, holds: HoldStore) -> None:
    """Extends every live hold every EXTEND_EVERY_S, until cancelled. Thousands at once would keep
    everybody waiting, so each has its slice of that time; a slice that was missed is made up for.
    """
    loop = asyncio.get_running_loop()
    done = int(loop.time() / _SLICE_S)
    while True:
        await asyncio.sleep(_SLICE_S)
        now = int(loop.time() / _SLICE_S)
        due = {n % _SLICES for n in range(max(done, now - _SLICES) + 1, now + 1)}
        done = now
        by_tag: dict[str, list[str]] = {}
        for request_id, live in plane.in_flight.items():
            if hash(request_id) % _SLICES in due:
                by_tag.setdefault(live.tag, []).append(request_id)
        for tag, ids in by_tag.items():
            failpoint("upkeep.extends")
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
