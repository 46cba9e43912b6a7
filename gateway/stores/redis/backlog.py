"""How much of one tag is still on its way, for people who ask."""

import asyncio
from typing import Final

import msgspec

from gateway.stores.redis import keys
from gateway.stores.redis.channel import Channels
from gateway.stores.redis.refused import DECODER, Refused

_SOME: Final = 20


class Backlog(msgspec.Struct, frozen=True):
    """What the ledger does not have yet. `oldest_ms`: when the first was settled; None: none is.
    `aside`: some of what is quarantined, by id.
    """

    journal_entries: int
    oldest_ms: int | None
    quarantined: int
    holds: int
    aside: tuple[Refused, ...] = ()


async def read(channels: Channels, tag: str) -> Backlog:
    """StoreUnavailable."""
    ask = channels.of(tag).ask
    entries, oldest, quarantined, holds, some = await asyncio.gather(
        ask("XLEN", keys.journal(tag)),
        ask("XRANGE", keys.journal(tag), "-", "+", "COUNT", 1),
        ask("HLEN", keys.quarantine(tag)),
        ask("ZCARD", keys.holds(tag)),
        ask("HSCAN", keys.quarantine(tag), 0, "COUNT", _SOME),
    )
    aside = sorted(map(DECODER.decode, some[1][1::2]), key=lambda each: each.id)
    oldest_ms = int(oldest[0][0].split(b"-")[0]) if oldest else None
    return Backlog(entries, oldest_ms, quarantined, holds, tuple(aside[:_SOME]))


async def journal(channels: Channels, tag: str) -> tuple[int, int]:
    """How long its oldest entry has waited, in ms, and its bytes in the store, about. (0, 0) where
    nothing waits. StoreUnavailable.
    """
    ask, key = channels.of(tag).ask, keys.journal(tag)
    oldest, size, time = await asyncio.gather(
        ask("XRANGE", key, "-", "+", "COUNT", 1),
        ask("MEMORY", "USAGE", key, "SAMPLES", 5),
        ask("TIME"),
    )
    if not oldest:
        return 0, 0
    now_ms = int(time[0]) * 1000 + int(time[1]) // 1000
    return max(0, now_ms - int(oldest[0][0].split(b"-")[0])), int(size or 0)
