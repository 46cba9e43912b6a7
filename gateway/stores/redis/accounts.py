"""Reading budget accounts for people who ask: what is spent, held and leased. Nothing here changes
anything.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.stores.redis.channel import Channels, StoreUnavailable
from policies.accounts import Balance

_WITHIN_S: Final = 2.0  # somebody is looking at a page

# (tag, account key) -> what stands on it; None when nothing was ever held there.
AccountReader = Callable[[str, str], Awaitable[Balance | None]]


def account_reader(channels: Channels) -> AccountReader:
    """The reader raises StoreUnavailable."""

    async def read(tag: str, key: str) -> Balance | None:
        try:
            async with asyncio.timeout(_WITHIN_S):
                shown = await channels.of(tag).ask("HMGET", key, "posted", "held", "leased")
        except TimeoutError as fault:
            raise StoreUnavailable("the store did not answer in time") from fault
        if shown == [None, None, None]:
            return None
        return Balance(*(int(figure or 0) for figure in shown))

    return read


# (tag, gate key) -> when the gate's bucket is full again, microseconds since the epoch; 0: it is.
GateReader = Callable[[str, str], Awaitable[int]]


def gate_reader(channels: Channels) -> GateReader:
    """The reader raises StoreUnavailable."""

    async def read(tag: str, key: str) -> int:
        return int(await channels.of(tag).ask("GET", key) or 0)

    return read
