"""What tests of holds share: an open store client, admissions at choice, a look at the books."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from redis.asyncio import Redis

from gateway.stores.redis import address, keys
from gateway.stores.redis.channel import Channels
from gateway.stores.redis.client import open_client
from gateway.stores.redis.holds import (
    MONEY,
    Account,
    Admission,
    Gate,
    HoldStore,
    Slot,
)

TAG = "s00"
FOREVER_MS = 2**52
ASK = Admission(
    hold_id="req_1",
    ttl_ms=30_000,
    input_money=1_000,
    output_money=10,
    input_tokens=100,
    wanted=100,
    least=10,
    choices=1,
    gates=(),
    slots=(),
    accounts=(),
)
_numbers = itertools.count()


def ask(**changes: Any) -> Admission:
    """One admission with a fresh hold id: 1,000 for the input, 10 a token, 100 tokens wanted."""
    return msgspec.structs.replace(ASK, **({"hold_id": f"req_{next(_numbers)}"} | changes))


def account(cap: int, name: str = "b", unit: int = MONEY, end_ms: int = FOREVER_MS) -> Account:
    return Account(keys.account(TAG, name, "m"), cap, 0, end_ms, unit, name)


def gate(advance_us: int, burst_us: int, kind: str = "rpm") -> Gate:
    return Gate(keys.gate(TAG, "lim", kind), advance_us, burst_us, "lim", kind)


def slot(maximum: int) -> Slot:
    return Slot(keys.slots(TAG, "lim"), maximum, "lim")


@contextlib.asynccontextmanager
async def open_channels(url: str) -> AsyncIterator[Channels]:
    channels = Channels(address.parse(url))
    await channels.open()
    try:
        yield channels
    finally:
        await channels.close()


@contextlib.asynccontextmanager
async def open_holds(url: str, **options: Any) -> AsyncIterator[HoldStore]:
    async with open_channels(url) as channels:
        yield HoldStore(channels, **options)


@contextlib.asynccontextmanager
async def open_reader(url: str) -> AsyncIterator[Redis]:
    client = open_client(url)
    try:
        yield client
    finally:
        await client.aclose()


async def books(client: Redis, name: str = "b") -> tuple[int, int]:
    """(posted, held) of one account."""
    posted, held = await client.hmget(keys.account(TAG, name, "m"), ["posted", "held"])
    return int(posted or 0), int(held or 0)
