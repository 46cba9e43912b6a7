"""What a worker does beside serving: its holds kept alive, waiting settlements sent again, money
leased for when the store is away, slots at backends, and what it will need to count by loaded while
nobody waits.
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
LOOK_AGAIN_S: Final = 1.0
LOOK_WITHIN_S: Final = 1.0
_SLICES: Final = 32

_LOG: Final = logging.getLogger(__name__)


class Whole:
    """Whether the store can be admitted against, seen anew at every look.

    A worker gets work once it has found the counters whole, or no store to ask, and goes on getting
    it: what the store loses later it loses for all workers, budgets say what is served meanwhile,
    and a refusal in words is better than nobody who answers.
    """

    def __init__(self, plane: DataPlane, holds: HoldStore) -> None:
        self._plane = plane
        self._holds = holds
        self._lacking: frozenset[str] = frozenset()  # tags whose counters were not whole
        self._silent = False
        self.begun = False

    def trouble(self) -> str:
        """What is wrong with the store now, in words; empty: nothing."""
        channels, tags = self._holds.channels, sorted(self._plane.snapshot.tags)
        away = [tag for tag in tags if not channels.of(tag).up]
        if away and not channels.up:
            return "out of reach; each budget's `outage` decides"
        if away:
            return f"out of reach for {', '.join(away)}; each budget's `outage` decides"
        if self._silent:
            return "it does not answer in time; each budget's `outage` decides"
        if self._lacking or any(self._holds.epoch(tag) is None for tag in tags):
            return "its counters are not whole; the jobs see to it, each budget's `outage` decides"
        return ""

    async def look(self) -> None:
        """At whatever can be reached."""
        tags, channels = self._plane.snapshot.tags, self._holds.channels
        asked = [tag for tag in tags if channels.of(tag).up]
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                whole = await asyncio.gather(*map(self._holds.learn_epoch, asked))
        except TimeoutError:
            self._silent = True
            return
        self._silent = False
        self._lacking = frozenset(tag for tag, is_so in zip(asked, whole, strict=True) if not is_so)
        self.begun = self.begun or not self._lacking

    async def keep_looking(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_AGAIN_S if self.begun else LOOK_EVERY_S)


def upkeep(
    plane: DataPlane, holds: HoldStore, settler: Settler, leases: Leases, tokeniser: Tokeniser
) -> tuple[Coroutine[Any, Any, None], ...]:
    """All that goes on until the worker ends."""
    return (
        keep_holds_alive(plane, holds),
        settle_what_waits(settler),
        leases.keep(),
        load_while_quiet(plane, tokeniser),
        plane.turns.keep(),
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
