"""Telling every worker that the configuration has changed.

A hint, no more: who misses it finds out by looking.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.stores.redis import keys

LISTEN_AGAIN_S: Final = 0.5
_QUIET_S: Final = 5.0

_LOG: Final = logging.getLogger(__name__)


async def publish(client: Redis, revision: int) -> None:
    """Say that the configuration has reached this revision. A store that is down raises nothing."""
    try:
        await client.publish(keys.CONFIG_CHANNEL, str(revision))
    except (RedisError, OSError) as fault:
        _LOG.warning("the change was not announced, workers will find it: %s", fault)


async def listen(client: Redis, told: Callable[[int], None]) -> None:
    """Call `told(revision)` for every change, until cancelled.

    After each (re)connection it is called with 0: something may have been missed.
    """
    while True:
        with contextlib.suppress(RedisError, OSError):
            await _listen_once(client, told)
        await asyncio.sleep(LISTEN_AGAIN_S)


async def _listen_once(client: Redis, told: Callable[[int], None]) -> None:
    async with client.pubsub() as channel:
        await channel.subscribe(keys.CONFIG_CHANNEL)
        while True:
            message = await channel.get_message(timeout=_QUIET_S)
            if message is None:
                continue
            if message["type"] == "subscribe":
                told(0)
            elif message["type"] == "message" and message["data"].isdigit():
                told(int(message["data"]))
