"""Reading holds for those who look after them: the reaper, the replay of spools, the tests."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.stores.redis import keys, wire
from gateway.stores.redis.channel import StoreUnavailable
from gateway.stores.redis.scripts import OVERDUE
from policies.budgets import Hold

_AT_ONCE: Final = 256
_LOG: Final = logging.getLogger(__name__)


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
        text = OVERDUE.text.decode()
        found: Any = await client.eval(text, 1, keys.holds(tag), late_ms, most)
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault
    return tuple(hold_id.decode() for hold_id in found)


async def all_of(client: Redis, tag: str, hold_ids: Sequence[str]) -> dict[str, Hold]:
    """The holds that are there, by id. A record that a newer release wrote is left to it.

    Raises StoreUnavailable.
    """
    found: dict[str, Hold] = {}
    for start in range(0, len(hold_ids), _AT_ONCE):
        part = hold_ids[start : start + _AT_ONCE]
        try:
            packed: Any = await client.mget([keys.hold(tag, hold_id) for hold_id in part])
        except (RedisError, OSError) as fault:
            raise StoreUnavailable(str(fault)) from fault
        for hold_id, record in zip(part, packed, strict=True):
            try:
                hold = wire.hold(record) if record else None
            except wire.RecordError as fault:
                _LOG.warning("hold %s is not ours to end: %s", hold_id, fault)
                continue
            if hold is not None:
                found[hold_id] = hold
    return found


async def ids(client: Redis, tag: str) -> tuple[str, ...]:
    """Every hold of the tag, expired ones included. Raises StoreUnavailable."""
    try:
        found: Any = await client.zrange(keys.holds(tag), 0, -1)
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault
    return tuple(hold_id.decode() for hold_id in found)


async def everything(client: Redis, tag: str) -> dict[str, Hold]:
    """Every hold of the tag by its id. Raises StoreUnavailable."""
    return await all_of(client, tag, await ids(client, tag))


async def living(client: Redis, tag: str) -> int:
    """How many holds this tag has, expired ones included. Raises StoreUnavailable."""
    try:
        return int(await client.zcard(keys.holds(tag)))
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault
