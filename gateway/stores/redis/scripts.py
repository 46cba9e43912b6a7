"""The Lua files as the store knows them: by the SHA-1 of their text."""

import hashlib
from importlib.resources import files
from typing import Final

import msgspec

from gateway.stores.redis.channel import pack


class Script(msgspec.Struct, frozen=True):
    """One atomic step. `packed` calls it by hash; `spelled_out` sends its text along."""

    name: str
    text: bytes
    sha: bytes

    def packed(self, keys: tuple[str, ...], args: list[bytes]) -> bytes:
        return pack(b"EVALSHA", self.sha, len(keys), *keys, *args)

    def spelled_out(self, keys: tuple[str, ...], args: list[bytes]) -> bytes:
        """For a store that does not have the script (it forgets them all when it restarts)."""
        return pack(b"EVAL", self.text, len(keys), *keys, *args)


def _read(name: str) -> Script:
    text = files(__package__).joinpath(f"{name}.lua").read_bytes()
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


ADMIT: Final = _read("admit")
SETTLE: Final = _read("settle")
RELEASE: Final = _read("release")
EXTEND: Final = _read("extend")
SLICE: Final = _read("slice")
LEND: Final = _read("lend")
TAKE_BACK: Final = _read("take_back")
KEEP: Final = _read("keep")
SHARE: Final = _read("share")
LEASE_RENEW: Final = _read("lease_renew")
LEASE_RETURN: Final = _read("lease_return")
OVERDUE: Final = _read("overdue")
CUT: Final = _read("cut")
CORRECT: Final = _read("correct")
CLOSE_EPOCH: Final = _read("close_epoch")
OPEN_EPOCH: Final = _read("open_epoch")
RESTORE: Final = _read("restore")
HOT: Final = (ADMIT, SETTLE, RELEASE, EXTEND, SLICE, KEEP)  # what requests need
