"""Reading the journal: the stream that settle.lua writes and the ledger drains.

An entry is read by one consumer of one group, and leaves only when the ledger has it; what a dead
consumer had read is claimed by the next.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from gateway.stores.redis import keys
from gateway.stores.redis.channel import StoreUnavailable

GROUP: Final = "ledger"
LONGEST_BLOCK_MS: Final = 5_000  # below the client's own patience
AT_ONCE: Final = 250  # entries in one command: admissions wait in the store behind it

T = TypeVar("T")


class Entry(msgspec.Struct, frozen=True):
    """One settled attempt. `hold_found` False: no counter was moved with it. Or, without an event,
    the decision on a request that was refused.
    """

    id: bytes
    event: bytes
    hold_found: bool = False
    decision: bytes = b""
    standing: bytes = b""  # what the decision refers to, until it was told


class Journal:
    """The journal of one tag as one consumer sees it. Every call may raise StoreUnavailable."""

    def __init__(self, client: Redis, tag: str, consumer: str) -> None:
        self._client = client
        self._key = keys.journal(tag)
        self._consumer = consumer

    async def take(self, most: int, block_ms: int = 0) -> tuple[Entry, ...]:
        """Entries nobody has read yet; waits up to `block_ms` for the first (0: not at all). Those
        of a call that fails come back as orphans.
        """
        found: list[Entry] = []
        while len(found) < most:
            wanted = min(most - len(found), AT_ONCE)
            entries = await self._taken(wanted, 0 if found else block_ms)
            found += entries
            if len(entries) < wanted:
                break
        return tuple(found)

    async def _taken(self, most: int, block_ms: int) -> tuple[Entry, ...]:
        block = min(block_ms, LONGEST_BLOCK_MS) or None
        streams = await self._grouped(
            lambda: self._client.xreadgroup(
                GROUP, self._consumer, {self._key: ">"}, count=most, block=block
            )
        )
        return _entries(streams[0][1]) if streams else ()

    async def reclaim(self, most: int, idle_ms: int) -> tuple[Entry, ...]:
        """Entries that were read at least `idle_ms` ago, by anybody, and never marked done: some of
        them at least.
        """
        some = min(most, AT_ONCE)
        answer = await self._grouped(
            lambda: self._client.xautoclaim(
                self._key, GROUP, self._consumer, min_idle_time=idle_ms, count=some
            )
        )
        return _entries(answer[1])

    async def waiting(self, at_once: int = 1_000) -> AsyncIterator[tuple[Entry, ...]]:
        """All attempts that are not marked done, oldest first, some at a time; nothing is taken by
        it.
        """
        after = b"-"
        while True:
            found = _entries(
                await _reaching(self._client.xrange(self._key, min=after, count=at_once))
            )
            if attempts := tuple(entry for entry in found if entry.event):
                yield attempts
            if len(found) < at_once:
                return
            after = b"(" + found[-1].id

    async def done(self, ids: Sequence[bytes]) -> None:
        """The ledger has these: they leave the stream."""
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.xack(self._key, GROUP, *some)
                pipe.xdel(self._key, *some)
                await _reaching(pipe.execute())

    async def length(self) -> int:
        """Entries that the ledger does not have yet."""
        return int(await _reaching(self._client.xlen(self._key)))

    async def _grouped(self, command: Any) -> Any:
        """The answer, after making the group where it is missing (a new or an emptied store)."""
        try:
            return await _reaching(command())
        except ResponseError as fault:
            if not str(fault).startswith("NOGROUP"):
                raise StoreUnavailable(str(fault)) from fault
        await self._make_group()
        return await _reaching(command())

    async def _make_group(self) -> None:
        try:
            await _reaching(self._client.xgroup_create(self._key, GROUP, id="0", mkstream=True))
        except ResponseError as fault:
            if not str(fault).startswith("BUSYGROUP"):
                raise StoreUnavailable(str(fault)) from fault


def _entries(raw: Any) -> tuple[Entry, ...]:
    # An entry deleted while it was pending comes back without fields.
    return tuple(_entry(entry_id, fields) for entry_id, fields in raw if fields)


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    if b"d" in fields:
        return Entry(entry_id, b"", decision=fields[b"d"], standing=fields[b"s"])
    return Entry(entry_id, fields[b"e"], fields[b"h"] == b"1")


async def _reaching(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except ResponseError:
        raise
    except (RedisError, OSError) as fault:
        raise StoreUnavailable(str(fault)) from fault
