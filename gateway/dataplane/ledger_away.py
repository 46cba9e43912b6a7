"""For how long, and for how much, usage may wait for the ledger before nothing more is served.

The ledger is not on the way of a request: while the database is down, slow or read-only, outcomes
wait in the journal. That has a bound, because the journal lives in the store's memory, and because
an operator may not want to serve for days what he cannot see. Each worker looks by itself.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

import msgspec

from gateway.dataplane.request import DataPlane
from gateway.stores.redis import backlog
from gateway.stores.redis.channel import Channels, StoreUnavailable

LOOK_EVERY_S: Final = 1.0


class Patience(msgspec.Struct, frozen=True):
    """The oldest entry may be `age_ms` old, and the journal of a tag have `most_bytes`."""

    age_ms: int
    most_bytes: int


async def keep_looking(channels: Channels, plane: DataPlane, patience: Patience) -> None:
    """Until cancelled, `plane.overdue` has the tags whose journal is beyond its bounds. While the
    store cannot be asked it stays as it is: nothing is admitted then anyway.
    """
    while True:
        with contextlib.suppress(StoreUnavailable):
            plane.overdue = await _overdue(channels, plane.snapshot.tags, patience)
        await asyncio.sleep(LOOK_EVERY_S)


async def _overdue(channels: Channels, tags: Iterable[str], patience: Patience) -> frozenset[str]:
    waiting = [(tag, await backlog.journal(channels, tag)) for tag in sorted(tags)]
    return frozenset(
        tag
        for tag, (age_ms, size) in waiting
        if age_ms > patience.age_ms or size > patience.most_bytes
    )
