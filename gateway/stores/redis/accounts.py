"""Reading budget accounts for people who ask: what is spent and held. Nothing here changes
anything.
"""

from collections.abc import Awaitable, Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.stores.redis.channel import StoreUnavailable

# (tag, account key) -> (posted, held) in counter units; None when nothing was ever held there.
AccountReader = Callable[[str, str], Awaitable[tuple[int, int] | None]]


def account_reader(client: Redis) -> AccountReader:
    """Over a cold connection. The reader raises StoreUnavailable."""

    async def read(_tag: str, key: str) -> tuple[int, int] | None:
        try:
            posted, held = await client.hmget(key, ["posted", "held"])
        except (RedisError, OSError) as fault:
            raise StoreUnavailable(str(fault)) from fault
        if posted is None and held is None:
            return None
        return int(posted or 0), int(held or 0)

    return read
