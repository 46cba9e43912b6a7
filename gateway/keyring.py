"""Application keys: `mh_<id16>_<secret43>_<crc6>`, made, recognised and hashed; admin tokens are
the same behind `mha_`.

The id is public and may stand in logs. The secret has 256 random bits, so a keyed hash is enough to
keep of it, and a slow one would be wrong on the hot path. The checksum has no security value: it
turns away typing errors before any look-up.
"""

import hashlib
import hmac
import os
import zlib
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PAIRS: Final = tuple((a + b).encode() for a in _DIGITS for b in _DIGITS)
_ID_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH: Final = 70
_SIGNED: Final = 63  # the checksum covers everything before its own underscore


class Presented(NamedTuple):
    """A well-formed key as a client sent it. Whether it is a live one is the snapshot's to say."""

    public_id: str
    secret: bytes


class Made(msgspec.Struct, frozen=True):
    """A fresh key. `text` is shown once and kept nowhere."""

    public_id: str
    secret: bytes
    text: str

    def __repr__(self) -> str:
        return f"Made({self.public_id})"


class Peppers:
    """The secrets that hash keys, by version. New digests are made with `current`."""

    __slots__ = ("_digesters", "by_version", "current")

    def __init__(self, current: int, by_version: Mapping[int, bytes]) -> None:
        self.current = current
        self.by_version = by_version
        self._digesters = {version: Digester(pepper) for version, pepper in by_version.items()}

    def __repr__(self) -> str:
        return f"Peppers(current={self.current})"

    def digester(self, version: int) -> "Digester | None":
        """None: a version that is not in force any more."""
        return self._digesters.get(version)


def make(prefix: str = "mh") -> Made:
    public_id = "".join(_ID_ALPHABET[byte & 31] for byte in os.urandom(16))
    secret = _base62(int.from_bytes(os.urandom(32), "big"), 43)
    signed = f"{prefix}_{public_id}_{secret}"
    text = f"{signed}_{_checksum(signed.encode()).decode()}"
    return Made(public_id=public_id, secret=secret.encode(), text=text)


def parse(raw: bytes) -> Presented | None:
    """The parts of a well-formed key, else None. About a microsecond; no I/O."""
    if len(raw) != _LENGTH or raw[:3] != b"mh_" or raw[19] != 95 or raw[63] != 95:
        return None
    if raw[64:] != _checksum(raw[:_SIGNED]):
        return None
    try:
        public_id = raw[3:19].decode("ascii")
    except UnicodeDecodeError:
        return None
    return Presented(public_id, raw[20:63])


def parse_admin(raw: bytes) -> Presented | None:
    """The parts of a well-formed admin token, else None."""
    if len(raw) != _LENGTH + 1 or raw[:4] != b"mha_" or raw[20] != 95 or raw[64] != 95:
        return None
    if raw[65:] != _checksum(raw[: _SIGNED + 1]) or not raw.isascii():
        return None
    return Presented(raw[4:20].decode("ascii"), raw[21:64])


def digest(pepper: bytes, secret: bytes) -> bytes:
    """What the database keeps of a secret: HMAC-SHA-256, 32 bytes. It is no credential itself."""
    return hmac.digest(pepper, secret, "sha256")


def fingerprint(raw: bytes) -> bytes:
    """Tells whole keys apart inside this process: a keyed hash of 256 bits under a secret that is
    drawn at its start and never leaves it. Half the work of a digest, and worth nothing elsewhere.
    """
    hashed = _OURS.copy()
    hashed.update(raw)
    return hashed.digest()


_OURS: Final = hashlib.blake2b(key=os.urandom(32), digest_size=32)


class Digester:
    """`digest` with one pepper, for whoever needs it often: what depends on the pepper alone is
    done once (RFC 2104, section 4, says how).
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, pepper: bytes) -> None:
        if len(pepper) > _BLOCK_BYTES:
            pepper = hashlib.sha256(pepper).digest()
        padded = pepper.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(padded.translate(_INNER))
        self._outer = hashlib.sha256(padded.translate(_OUTER))

    def digest(self, secret: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(secret)
        outer.update(inner.digest())
        return outer.digest()


_BLOCK_BYTES: Final = 64
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


def matches(pepper: bytes, secret: bytes, kept: bytes) -> bool:
    """Constant-time: how long it takes says nothing about how much of a guess was right."""
    return hmac.compare_digest(digest(pepper, secret), kept)


def _checksum(signed: bytes) -> bytes:
    high, low = divmod(zlib.crc32(signed), 3844)
    top, middle = divmod(high, 3844)
    return _PAIRS[top] + _PAIRS[middle] + _PAIRS[low]


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
