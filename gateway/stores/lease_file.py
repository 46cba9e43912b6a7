"""What a worker has on lease, in a file beside its spool: for a rebuild of the store's counters,
which must set that money aside again, and for whoever ends what it no longer has.

It is whole at any instant and says at least what may be spent. It is not synced: leases end with
the machine.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from policies.accounts import Account

_NAME: Final = "leases"


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """One lease as it was granted; what was spent of it since stands in the spool."""

    lease_id: str
    tag: str
    account: Account
    amount: int


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[Kept, ...]).decode


def write(spool: Path, leases: Iterable[Kept]) -> None:
    """Replaces what it said. Raises OSError, and then it says what it said before."""
    fresh = spool / f"{_NAME}.new"
    fresh.write_bytes(_encode(tuple(leases)))
    fresh.replace(spool / _NAME)


def read(spool: Path) -> tuple[Kept, ...]:
    """Nothing where there is no such file, or none of ours."""
    try:
        return _decode((spool / _NAME).read_bytes())
    except (OSError, msgspec.DecodeError):
        return ()
