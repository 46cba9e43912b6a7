"""The Lua files as the store knows them: by the SHA-1 of their text."""

import hashlib
from functools import lru_cache
from importlib.resources import files
from typing import Final

import msgspec

from gateway.stores.redis.channel import pack


class Script(msgspec.Struct, frozen=True):
    """One atomic step. `packed` calls it by hash; `spelled_out` sends its text along.

    What goes out with every turn of the loop is joined here: for arguments as long as these hiredis
    takes half as much time again.
    """

    name: str
    text: bytes
    sha: bytes

    def packed(self, keys: tuple[str, ...], args: list[bytes]) -> bytes:
        words = [b"*%d\r\n%b" % (3 + len(keys) + len(args), _opening(self.sha, keys))]
        for arg in args:
            words += (b"$%d\r\n" % len(arg), arg, b"\r\n")
        return b"".join(words)

    def spelled_out(self, keys: tuple[str, ...], args: list[bytes]) -> bytes:
        """For a store that does not have the script (it forgets them all when it restarts)."""
        return pack(b"EVAL", self.text, len(keys), *keys, *args)


@lru_cache(maxsize=1024)
def _opening(sha: bytes, keys: tuple[str, ...]) -> bytes:
    """A call by hash up to its arguments, but for how many words it has."""
    return pack(b"EVALSHA", sha, len(keys), *keys).partition(b"\r\n")[2]


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
