"""Prefixed, sortable ids: `team_01kar...`. Millisecond time first, 80 random bits after."""

import os
import time
from functools import lru_cache
from random import Random
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case
# Seeded from the system once: ids must be unique, not secret. A process that forks would repeat
# them; ours are started afresh.
_bits: Final = Random(os.urandom(32)).getrandbits  # noqa: S311 - see above
_DIGITS: Final = {
    letter: "0123456789abcdefghijklmnopqrstuv"[n] for n, letter in enumerate(_ALPHABET)
}
_LENGTH: Final = 26
_PAIRS: Final = tuple(a + b for a in _ALPHABET for b in _ALPHABET)  # 10 bits at a time
_BY_BYTE: Final = bytes(ord(_ALPHABET[byte & 31]) for byte in range(256))  # 5 bits of each


def new(prefix: str) -> str:
    """A fresh id: prefix, `_`, 26 characters; ids of one process and prefix sort by time."""
    drawn = _bits(128).to_bytes(16, "little").translate(_BY_BYTE).decode("ascii")
    return f"{prefix}_{_instant(time.time_ns() // 1_000_000)}{drawn}"


@lru_cache(maxsize=4)
def _instant(ms: int) -> str:
    """Ten characters; the ids of one millisecond share them."""
    return "".join([_PAIRS[ms >> shift & 1023] for shift in (40, 30, 20, 10, 0)])


def decision_of(request_id: str) -> str:
    """A request has one decision: the one that was acted on."""
    return f"decision_{request_id.removeprefix('req_')}"


def request_of(decision_id: str) -> str:
    return f"req_{decision_id.removeprefix('decision_')}"


def made_at_us(identifier: str) -> int:
    """When the id was made, to the millisecond, in microseconds since the epoch. ValueError for
    what cannot be an id.
    """
    return int("".join(_DIGITS[letter] for letter in _time_of(identifier)), 32) * 1000


def _time_of(identifier: str) -> str:
    _, _, rest = identifier.partition("_")
    if len(rest) != _LENGTH or not set(rest) <= _DIGITS.keys():
        raise ValueError(f"{identifier[:64]!r} is not an id")
    return rest[:10]
