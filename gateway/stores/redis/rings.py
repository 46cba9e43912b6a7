"""What each worker has measured of its backends lately, for the others to rank by.

A worker sends the slots it may still have added to since it last sent; the others keep what they
have heard. Slots travel by the wall-clock time at which they began, for machines do not share a
monotonic clock. Counts are whole, not increments: a message lost or doubled needs no repair.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.stores.redis.channel import Channels
from policies.latency import SLOT_US, SLOTS

KEY: Final = "mh:{house}:rings"  # HASH: worker -> msgpack of its Rings
STALE_AFTER_US: Final = 15_000_000
LIFE_MS: Final = SLOTS * SLOT_US // 1000  # of the whole, once nobody speaks

Slots = dict[int, dict[int, int]]  # when the slot began, wall-clock us -> samples by bucket


class SeatRings(msgspec.Struct, frozen=True, array_like=True):
    """One backend and model. New fields go to the end, with a default."""

    backend_id: str
    upstream_model: str
    rings: tuple[Slots, ...]  # in the order of health.RINGS


class Rings(msgspec.Struct, frozen=True, array_like=True):
    """One worker at one moment. Its name is unique: host and number."""

    worker: str
    at_us: int
    seats: tuple[SeatRings, ...]


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Rings)


async def exchange(channels: Channels, mine: Rings) -> Sequence[Rings]:
    """Tells what this worker measured; answers what the others did, as far as it is fresh. Those
    long silent are forgotten on the way. StoreUnavailable when the store does not take part.
    """
    house = channels.house
    _, _, found = await asyncio.gather(
        house.ask("HSET", KEY, mine.worker, _ENCODER.encode(mine)),
        house.ask("PEXPIRE", KEY, LIFE_MS),
        house.ask("HGETALL", KEY),
    )
    said = list(zip(found[::2], map(_decoded, found[1::2]), strict=True))
    oldest_us = mine.at_us - STALE_AFTER_US
    silent = [
        name for name, rings in said if rings is None or rings.at_us < oldest_us - LIFE_MS * 1000
    ]
    if silent:
        await house.ask("HDEL", KEY, *silent)
    heard = [rings for _, rings in said if rings is not None and rings.at_us >= oldest_us]
    return [rings for rings in heard if rings.worker != mine.worker]


async def retire(channels: Channels, worker: str) -> None:
    """The worker has ended in good order. What it measured stays with those who heard it."""
    await channels.house.ask("HDEL", KEY, worker)


def _decoded(packed: Any) -> Rings | None:
    """None for what another release wrote in a form of its own."""
    try:
        return _DECODER.decode(packed)
    except msgspec.DecodeError:
        return None
