"""Reading holds for those who look after them: the reaper, the replay of spools, the tests."""

from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.stores.redis import keys, wire
from gateway.stores.redis.channel import StoreUnavailable
from policies.budgets import Hold


async def hold(client: Redis, tag: str, hold_id: str) -> Hold | None:
    """The hold as it was admitted, or None. Raises StoreUnavailable, wire.RecordError."""
    try:
        record: Any = await client.get(keys.hold(tag, hold_id))
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault
    return wire.hold(record) if record else None


async def overdue(client: Redis, tag: str, most: int, late_ms: int = 0) -> tuple[str, ...]:
    """Ids of holds whose expiry lies at least `late_ms` back by the store's clock, oldest first.

    An expired hold still counts in `held`; it ends by settle or release like any other.
    """
    try:
        seconds, micros = await client.time()
        until = seconds * 1000 + micros // 1000 - late_ms
        found: Any = await client.zrangebyscore(keys.holds(tag), "-inf", until, start=0, num=most)
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault
    return tuple(hold_id.decode() for hold_id in found)


async def living(client: Redis, tag: str) -> int:
    """How many holds this tag has, expired ones included. Raises StoreUnavailable."""
    try:
        return int(await client.zcard(keys.holds(tag)))
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault
