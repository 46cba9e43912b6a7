"""End users by a keyed hash of the name that an app has for them: the same person and key come to
the same hash, and nobody without the key can tell whose it is.
"""

import base64
import os
import re
from typing import Final

from gateway.keyring import Digester

KEY_BYTES: Final = 32
MOST_NAME_BYTES: Final = 1024  # of UTF-8; what is longer is no name
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # nobody can ask for such a one later
SUBJECT: Final = "eu"  # begins the id that the ledger has for somebody; a hash begins with a digit


class Pseudonyms:
    """The hashes of one tenant's end users under one version of its key."""

    __slots__ = ("_digester", "_version")

    def __init__(self, version: int, key: bytes) -> None:
        """ValueError unless the key has 32 bytes."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a pseudonym key has {KEY_BYTES} bytes, not {len(key)}")
        self._version = version
        self._digester = Digester(key)

    @classmethod
    def opened(cls, version: int, text: str) -> "Pseudonyms":
        """Of a key as `new_key` wrote it. ValueError for anything else."""
        return cls(version, base64.b64decode(text, validate=True))

    def of(self, name: str) -> str | None:
        """`version:HMAC-SHA-256` in hex of the name as it stands, letter for letter. None for what
        is empty, too long to be a name, or has control characters.
        """
        if _UNFIT.search(name) is not None:
            return None
        told = name.encode()
        if not 0 < len(told) <= MOST_NAME_BYTES:
            return None
        return f"{self._version}:{self._digester.digest(told).hex()}"


def new_key() -> str:
    """A fresh key, as it is sealed."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode("ascii")
