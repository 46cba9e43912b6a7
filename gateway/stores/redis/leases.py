"""One holder at a time: a name in the store that expires unless its holder renews it.

A lease keeps two jobs from doing the same work twice; it does not protect data. What must not
happen twice is guarded where it is written.
"""

import secrets

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.stores.redis import keys
from gateway.stores.redis.channel import StoreUnavailable
from gateway.stores.redis.scripts import LEASE_RENEW, LEASE_RETURN, Script


class Lease(msgspec.Struct, frozen=True):
    """Held while the store says so. `token` tells this holder from every other."""

    name: str
    token: str


async def take(client: Redis, name: str, ttl_ms: int) -> Lease | None:
    """The lease, or None when somebody has it. Raises StoreUnavailable."""
    lease = Lease(name, secrets.token_hex(16))
    try:
        got = await client.set(keys.lease(name), lease.token, nx=True, px=ttl_ms)
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault
    return lease if got else None


async def is_held(client: Redis, name: str) -> bool:
    """Whether anybody has it now. Raises StoreUnavailable."""
    try:
        return bool(await client.exists(keys.lease(name)))
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault


async def renew(client: Redis, lease: Lease, ttl_ms: int) -> bool:
    """Hold it for `ttl_ms` from now; False: it is not ours any more. Raises StoreUnavailable."""
    return await _ours(client, LEASE_RENEW, lease, ttl_ms)


async def give_back(client: Redis, lease: Lease) -> bool:
    """Let it go; False when it was not ours any more. Raises StoreUnavailable."""
    return await _ours(client, LEASE_RETURN, lease)


async def _ours(client: Redis, script: Script, lease: Lease, *args: int) -> bool:
    text = script.text.decode()
    try:
        answer = await client.eval(text, 1, keys.lease(lease.name), lease.token, *args)
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault
    return bool(answer)
