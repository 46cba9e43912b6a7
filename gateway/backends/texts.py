"""The texts of one stream, for counting when its usage is missing: how large they are in all, and
what they say, up to a bound. They come by the thousand and are asked for once, if at all.
"""

from typing import Final

TEXT_KEPT_BYTES: Final = 64 * 1024
MOST_NEW: Final = 64  # are joined at this number: small strings are mostly overhead
LARGE_BYTES: Final = 1024  # joined at once


class Texts:
    """Whoever appends to `new` himself calls `fold` at MOST_NEW, and after anything that is, or may
    be, of LARGE_BYTES: that bounds what waits there.
    """

    __slots__ = ("_bytes", "_kept", "_kept_bytes", "new")

    def __init__(self) -> None:
        self.new: list[str] = []  # not in the following yet
        self._bytes = 0
        self._kept = ""
        self._kept_bytes = 0  # TEXT_KEPT_BYTES: no more is kept

    def add(self, texts: list[str]) -> int:
        """Their bytes as UTF-8."""
        size = 0
        for text in texts:
            size += _size(text)
        self.new += texts
        if len(self.new) >= MOST_NEW or size > LARGE_BYTES:
            self.fold()
        return size

    def fold(self) -> None:
        """Adds the new texts to the sum, and to what is kept the first of their words."""
        if not self.new:
            return
        text = "".join(self.new)
        self.new.clear()
        size = _size(text)
        self._bytes += size
        if self._kept_bytes + size <= TEXT_KEPT_BYTES:
            self._kept_bytes += size
            self._kept += text
        elif self._kept_bytes < TEXT_KEPT_BYTES:
            self._kept_bytes = TEXT_KEPT_BYTES
            whole = _utf8(self._kept + text)
            self._kept = whole[:TEXT_KEPT_BYTES].decode("utf-8", "ignore")

    def bytes_in_all(self) -> int:
        """As UTF-8, kept or not."""
        self.fold()
        return self._bytes

    def kept(self) -> str:
        """The first TEXT_KEPT_BYTES of them."""
        self.fold()
        return self._kept


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(_utf8(text))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
