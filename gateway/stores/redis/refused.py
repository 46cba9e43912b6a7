"""An event that the ledger refused, as it is set aside."""

from typing import Final

import msgspec


class Refused(msgspec.Struct, frozen=True):
    """One event as it came, and why it was refused. `id` is the event's, or the journal entry's
    where the event cannot be read. `again_us`: from when it may be tried again; 0: never.
    """

    id: str
    event: bytes
    hold_found: bool
    reason: str
    at_us: int
    again_us: int = 0


ENCODER: Final = msgspec.msgpack.Encoder()
DECODER: Final = msgspec.msgpack.Decoder(Refused)
