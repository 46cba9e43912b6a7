"""The head of an answer: its lines, and how the body after it ends.

Answers of a kind have the same names of headers in the same order, so all but the values is worked
out once for each kind.
"""

import http
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

Headers = Iterable[tuple[bytes, bytes]]

_NAMED: Final = {status.value: status.phrase for status in http.HTTPStatus}
STATUS_LINES: Final = {
    status: f"HTTP/1.1 {status} {_NAMED.get(status, '')}\r\n".encode() for status in range(100, 600)
}

# As numbers: to look for one in bytes is quicker than for bytes of one, by a factor of ten.
_LF, _CR, _NUL = b"\n\r\0"
_NO_BODY: Final = frozenset((204, 304))
_TOKEN: Final = frozenset(
    b"!#$&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)


class AnswerHead:
    """Made once an answer's status and headers are known."""

    __slots__ = ("_bodiless", "_left_bytes", "chunked", "close", "lines", "unsized")

    def __init__(
        self, status: int, headers: Headers, bodiless: bool, old: bool, close: bool
    ) -> None:
        """`bodiless`: a HEAD was asked. `old`: by HTTP/1.0, which knows no chunks. `close`: the
        connection ends with this answer. RuntimeError for a header that is ours to set, or that
        could be taken for two.
        """
        names, values = zip(*headers, strict=True) if headers else ((), ())
        kind = _kind(status, names, bodiless, old, close)
        if kind.connection_at >= 0:
            close = close or b"close" in values[kind.connection_at].lower()
            values = values[: kind.connection_at] + values[kind.connection_at + 1 :]
            names = names[: kind.connection_at] + names[kind.connection_at + 1 :]
            kind = _kind(status, names, bodiless, old, close)
        said = b"".join(values)
        # Of the names only tokens passed, so what ends a line can come from a value alone.
        if _LF in said or _CR in said or _NUL in said:
            raise RuntimeError("the value of a header contains what ends its line")
        self.lines = kind.lines % values
        self.chunked, self.close, self.unsized = kind.chunked, kind.close, kind.unsized
        self._bodiless = kind.bodiless
        self._left_bytes = int(values[kind.length_at]) if kind.length_at >= 0 else 0

    def measured(self, body: bytes, *, last: bool) -> bytes:
        """What is written of a piece that is no chunk. RuntimeError for another length than the
        head's.
        """
        if self._bodiless:
            return b""
        if not self.unsized:
            self._left_bytes -= len(body)
            if self._left_bytes < 0 or (last and self._left_bytes):
                raise RuntimeError("the answer is not as long as its head says")
        return body


class _Kind:
    """What the heads of a kind have in common."""

    def __init__(
        self, status: int, names: tuple[bytes, ...], *, bodiless: bool, old: bool, close: bool
    ) -> None:
        names = tuple(map(_name, names))
        if names.count(b"content-length") > 1 or b"transfer-encoding" in names:
            raise RuntimeError("how long an answer is can be said once, and by its length")
        self.length_at = _place(names, b"content-length")
        self.connection_at = _place(names, b"connection")
        self.bodiless = bodiless or status in _NO_BODY
        self.unsized = self.length_at < 0 and not self.bodiless
        self.chunked = self.unsized and not old
        self.close = close or (self.unsized and old)
        self.lines = b"".join(
            (
                STATUS_LINES[status],
                *(b"%b: %%b\r\n" % name for name in names),
                b"transfer-encoding: chunked\r\n" if self.chunked else b"",
                b"connection: close\r\n" if self.close else b"",
                b"\r\n",
            )
        )


@lru_cache(maxsize=256)
def _kind(status: int, names: tuple[bytes, ...], bodiless: bool, old: bool, close: bool) -> _Kind:
    return _Kind(status, names, bodiless=bodiless, old=old, close=close)


def _name(given: bytes) -> bytes:
    if not given or not _TOKEN.issuperset(given):
        raise RuntimeError(f"{given!r} is no name of a header")
    return given.lower()


def _place(names: tuple[bytes, ...], name: bytes) -> int:
    """-1: nowhere."""
    return names.index(name) if name in names else -1
