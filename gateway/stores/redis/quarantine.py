"""Events that the ledger refuses, set aside by id: neither dropped nor tried again."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.stores.redis import keys
from gateway.stores.redis.channel import StoreUnavailable

_ENCODER: Final = msgspec.msgpack.Encoder()


class Refused(msgspec.Struct, frozen=True):
    """One event as it came, and why it was refused. `id` is the event's, or the journal entry's
    where the event cannot be read.
    """

    id: str
    event: bytes
    hold_found: bool
    reason: str
    at_us: int


_DECODER: Final = msgspec.msgpack.Decoder(Refused)


async def set_aside(client: Redis, tag: str, refused: Iterable[Refused]) -> None:
    """The first reason stands: the same event again changes nothing. Raises StoreUnavailable."""
    try:
        async with client.pipeline(transaction=False) as pipe:
            for each in refused:
                pipe.hsetnx(keys.quarantine(tag), each.id, _ENCODER.encode(each))
            await pipe.execute()
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault


async def read(client: Redis, tag: str) -> Mapping[str, Refused]:
    """All that is set aside, by id. Raises StoreUnavailable."""
    try:
        found: dict[Any, Any] = await client.hgetall(keys.quarantine(tag))
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault
    return {name.decode(): _DECODER.decode(packed) for name, packed in found.items()}


async def ids(client: Redis, tag: str) -> set[str]:
    try:
        names: list[Any] = await client.hkeys(keys.quarantine(tag))
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault
    return {name.decode() for name in names}
