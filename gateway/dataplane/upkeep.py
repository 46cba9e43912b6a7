"""What a worker does beside serving: its holds kept alive, waiting settlements sent again, money
leased for when the store is away, and what it will need to count by loaded while nobody waits.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

from gateway.dataplane.count import Tokeniser
from gateway.dataplane.leases import Leases
from gateway.dataplane.request import DataPlane
from gateway.dataplane.settle import Settler
from gateway.failpoints import failpoint
from gateway.stores.redis.holds import HoldStore, StoreUnavailable

_EXTENDED_AFTER: Final = 0.27  # of a hold's life: two failures in a row lose nothing
RETRY_EVERY_S: Final = 0.5
QUIET_S: Final = 0.5
LOOK_EVERY_S: Final = 0.05
_SLICES: Final = 32

_LOG: Final = logging.getLogger(__name__)


class Whole:
    """Whether the store's counters were ever found whole, on every shard within reach. Who cannot
    admit anything yet should get no work; a later loss, or a shard that is down, is refused request
    by request, for others might be no better off.
    """

    def __init__(self, plane: DataPlane, holds: HoldStore) -> None:
        self._plane = plane
        self._holds = holds
        self.known = False

    async def look(self) -> bool:
        tags, channels = self._plane.snapshot.tags, self._holds.channels
        asked = [tag for tag in tags if channels.of(tag).up]
        whole = await asyncio.gather(*map(self._holds.learn_epoch, asked))
        self.known = all(whole) and bool(asked or not tags)
        return self.known

    async def wait(self) -> None:
        while True:
            if self.known or await self.look():
                return
            await asyncio.sleep(LOOK_EVERY_S)


def upkeep(
    plane: DataPlane, holds: HoldStore, settler: Settler, leases: Leases, tokeniser: Tokeniser
) -> tuple[Coroutine[Any, Any, None], ...]:
    """All that goes on until the worker ends."""
    return (
        keep_holds_alive(plane, holds),
        settle_what_waits(settler),
        leases.keep(),
        load_while_quiet(plane, tokeniser),
    )


async def keep_holds_alive(plane: DataPlane, holds: HoldStore) -> None:
    """Extends every live hold well before its end, until cancelled. Thousands at once would keep
    everybody waiting, so each has its slice of that time; a slice that was missed is made up for.
    """
    loop = asyncio.get_running_loop()
    slice_s = holds.ttl_ms / 1000 * _EXTENDED_AFTER / _SLICES
    done = int(loop.time() / slice_s)
    while True:
        await asyncio.sleep(slice_s)
        now = int(loop.time() / slice_s)
        due = {n % _SLICES for n in range(max(done, now - _SLICES) + 1, now + 1)}
        done = now
        by_tag: dict[str, list[str]] = {}
        for request_id, live in plane.in_flight.items():
            if hash(request_id) % _SLICES in due:
                by_tag.setdefault(live.tag, []).append(request_id)
        # All at once: while one shard hangs, the others' holds must not expire.
        await asyncio.gather(*(_extend(holds, tag, ids) for tag, ids in by_tag.items()))


async def _extend(holds: HoldStore, tag: str, ids: list[str]) -> None:
    failpoint("upkeep.extends")
    try:
        await holds.extend(tag, ids, holds.ttl_ms)
    except StoreUnavailable as fault:
        _LOG.warning("holds could not be extended: %s", fault)


async def settle_what_waits(settler: Settler) -> None:
    """Sends again what the store has not confirmed, until cancelled."""
    while True:
        await asyncio.sleep(RETRY_EVERY_S)
        if settler.waiting:
            await settler.retry_waiting()


async def load_while_quiet(plane: DataPlane, tokeniser: Tokeniser) -> None:
    """Loads the vocabularies that may be needed once nothing has been in flight for two looks in a
    row, until cancelled. A worker that is never quiet loads them when it has to, like before.
    """
    quiet = False
    while True:
        await asyncio.sleep(QUIET_S)
        idle = not plane.in_flight
        if quiet and idle:
            await tokeniser.prepare()
        quiet = idle
