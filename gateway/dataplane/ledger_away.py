"""For how long, and for how much, usage may wait for the ledger before nothing more is served.

The ledger is not on the way of a request: while the database is down, slow or read-only, outcomes
wait in the journal. That has a bound, because the journal lives in the store's memory, and because
an operator may not want to serve for days what he cannot see. Each worker looks by itself.
"""

import asyncio
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
    """Until cancelled, `plane.overdue` has the tags whose journal is beyond its bounds. Those whose
    shard cannot be asked stay as they are: nothing is admitted there then anyway.
    """
    while True:
        tags = sorted(plane.snapshot.tags)
        found = await asyncio.gather(*(_is_overdue(channels, tag, patience) for tag in tags))
        plane.overdue = frozenset(
            tag
            for tag, overdue in zip(tags, found, strict=True)
            if overdue or (overdue is None and tag in plane.overdue)
        )
        await asyncio.sleep(LOOK_EVERY_S)


async def _is_overdue(channels: Channels, tag: str, patience: Patience) -> bool | None:
    """None: the store cannot be asked."""
    try:
        age_ms, size = await backlog.journal(channels, tag)
    except StoreUnavailable:
        return None
    return age_ms > patience.age_ms or size > patience.most_bytes
