"""What backends publish of their load: written by whoever looks, read by every worker."""

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.stores.redis.channel import Channels
from policies.candidates import Gauges

KEY: Final = "mh:{house}:engines"
LIFE_MS: Final = 8_000  # what is older says nothing of now

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(dict[str, Gauges])


async def publish(channels: Channels, found: Mapping[str, Gauges]) -> None:
    """By backend id, all that is known. StoreUnavailable when the store does not take it."""
    await channels.house.ask("SET", KEY, _ENCODER.encode(found), "PX", LIFE_MS)


async def read(channels: Channels) -> dict[str, Gauges]:
    """The last word, if it is fresh. StoreUnavailable when the store does not answer."""
    packed = await channels.house.ask("GET", KEY)
    if packed is None:
        return {}
    try:
        return _DECODER.decode(packed)
    except msgspec.DecodeError:  # of another release
        return {}
