"""Events that the ledger refuses, set aside by id: not dropped, and not tried again but for what is
dated ahead of our clock.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.stores.redis import keys
from gateway.stores.redis.channel import StoreUnavailable
from gateway.stores.redis.refused import DECODER, ENCODER, Refused


async def set_aside(client: Redis, tag: str, refused: Iterable[Refused]) -> None:
    """The first reason stands: the same event again changes nothing. Raises StoreUnavailable."""
    try:
        async with client.pipeline(transaction=False) as pipe:
            for each in refused:
                pipe.hsetnx(keys.quarantine(tag), each.id, ENCODER.encode(each))
            await pipe.execute()
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault


async def read(client: Redis, tag: str) -> Mapping[str, Refused]:
    """All that is set aside, by id. Raises StoreUnavailable."""
    try:
        found: dict[Any, Any] = await client.hgetall(keys.quarantine(tag))
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault
    return {name.decode(): DECODER.decode(packed) for name, packed in found.items()}


async def taken_up(client: Redis, tag: str, ids: Iterable[str], refused: Iterable[Refused]) -> None:
    """What was tried again is gone, but for what was `refused` again, which stands as it is now.
    Raises StoreUnavailable.
    """
    still = {each.id: ENCODER.encode(each) for each in refused}
    try:
        async with client.pipeline(transaction=True) as pipe:
            for each in ids:
                if each in still:
                    pipe.hset(keys.quarantine(tag), each, still[each])
                else:
                    pipe.hdel(keys.quarantine(tag), each)
            await pipe.execute()
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault


async def ids(client: Redis, tag: str) -> set[str]:
    try:
        names: list[Any] = await client.hkeys(keys.quarantine(tag))
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault
    return {name.decode() for name in names}
