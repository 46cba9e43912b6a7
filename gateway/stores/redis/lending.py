"""Reading leases for those who look after them: the replay of spools, the rebuild of counters, the
reaper.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.stores.redis import keys
from gateway.stores.redis.channel import StoreUnavailable
from gateway.stores.redis.scripts import OVERDUE

_AT_ONCE: Final = 10_000


class Listed(msgspec.Struct, frozen=True):
    """One lease in the store's index. `account` is the account's key."""

    lease_id: str
    account: str

    @property
    def owner(self) -> str:
        """The spool of the worker that has it."""
        return self.lease_id.rpartition("/")[0]


async def listed(client: Redis, tag: str) -> tuple[Listed, ...]:
    """Every lease of the tag. Raises StoreUnavailable."""
    try:
        found: Any = await client.zrange(keys.leases(tag), 0, -1)
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault
    return _listed(found)


async def of_owner(client: Redis, tag: str, owner: str) -> tuple[Listed, ...]:
    """Those of one worker. Raises StoreUnavailable."""
    return tuple(one for one in await listed(client, tag) if one.owner == owner)


async def overdue(client: Redis, tag: str, late_ms: int) -> tuple[Listed, ...]:
    """Those that expired so long ago by the store's clock, some at a time. Raises
    StoreUnavailable.
    """
    try:
        text = OVERDUE.text.decode()
        found: Any = await client.eval(text, 1, keys.leases(tag), late_ms, _AT_ONCE)
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault
    return _listed(found)


def _listed(members: Iterable[bytes]) -> tuple[Listed, ...]:
    parts = (member.decode().partition(" ") for member in members)
    return tuple(Listed(lease_id, account) for lease_id, _, account in parts)
