"""Reading budget accounts for people who ask: what is spent and held. Nothing here changes
anything.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.stores.redis.channel import Channels, StoreUnavailable

_WITHIN_S: Final = 2.0  # somebody is looking at a page

# (tag, account key) -> (posted, held) in counter units; None when nothing was ever held there.
AccountReader = Callable[[str, str], Awaitable[tuple[int, int] | None]]


def account_reader(channels: Channels) -> AccountReader:
    """The reader raises StoreUnavailable."""

    async def read(tag: str, key: str) -> tuple[int, int] | None:
        try:
            async with asyncio.timeout(_WITHIN_S):
                posted, held = await channels.of(tag).ask("HMGET", key, "posted", "held")
        except TimeoutError as fault:
            raise StoreUnavailable("the store did not answer in time") from fault
        if posted is None and held is None:
            return None
        return int(posted or 0), int(held or 0)

    return read


# (tag, gate key) -> when the gate's bucket is full again, microseconds since the epoch; 0: it is.
GateReader = Callable[[str, str], Awaitable[int]]


def gate_reader(channels: Channels) -> GateReader:
    """The reader raises StoreUnavailable."""

    async def read(tag: str, key: str) -> int:
        return int(await channels.of(tag).ask("GET", key) or 0)

    return read
