"""Server-sent events cut out of a byte stream, every byte kept as it came."""

import re
from io import BytesIO
from typing import Final

# A line ends with CRLF, LF or CR. A CR counts only when the next byte is known not to be LF, so
# that the events are the same wherever the reads happened to be split.
_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\n|\r(?=[^\n])){2}")
_TERMINATOR_BYTES: Final = 4
_CR: Final = 13
_LF: Final = 10

EVENT_LIMIT_BYTES: Final = 1024 * 1024


class OversizedEventError(ValueError):
    """One event passed the bound."""


class Splitter:
    """Bytes in, complete events out, each with the blank line that ends it.

    The events and `rest()` joined are exactly the bytes fed. A stream whose lines end with a lone
    CR gives its last event only as the rest.
    """

    __slots__ = ("_limit_bytes", "_pending")

    def __init__(self, limit_bytes: int = EVENT_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Raises OversizedEventError for an event above the limit, complete or not."""
        if self._pending or _CR in data:
            return self._feed_any(data)
        # A search for two bytes costs five times one for a single byte: look for that first.
        size = len(data)
        if data.find(_LF) + 2 == size and data[-1] == _LF and size <= self._limit_bytes:
            return [data]
        return self._cut_at_line_feeds(data)

    def rest(self) -> bytes:
        """What came after the last complete event; the splitter is empty afterwards."""
        rest = bytes(self._pending)
        self._pending.clear()
        return rest

    def _cut_at_line_feeds(self, data: bytes) -> list[bytes]:
        lines = BytesIO(data).readlines()  # looks for one byte, where `split` looks for two
        blank = lines[1::2]
        if blank.count(b"\n") < len(blank):  # not each has one line
            pieces = data.split(b"\n\n")
            rest = pieces.pop()
            return self._keep(rest, [piece + b"\n\n" for piece in pieces], len(data))
        rest = lines.pop() if len(lines) > 2 * len(blank) else b""
        return self._keep(rest, [line + b"\n" for line in lines[::2]], len(data))

    def _feed_any(self, data: bytes) -> list[bytes]:
        pending = self._pending
        begin_at = max(0, len(pending) - _TERMINATOR_BYTES + 1)
        pending += data
        events = []
        start = 0
        found = _BLANK_LINE.search(pending, begin_at)
        while found is not None:
            end = found.end()
            events.append(bytes(pending[start:end]))
            start = end
            found = _BLANK_LINE.search(pending, start)
        del found  # a match pins the buffer
        rest = bytes(pending[start:]) if start else b""
        if start:
            pending.clear()
            return self._keep(rest, events, start)
        return self._keep(b"", events, start)

    def _keep(self, rest: bytes, events: list[bytes], size: int) -> list[bytes]:
        """`size`: of the events together, or more."""
        self._pending += rest
        limit = self._limit_bytes
        if len(self._pending) > limit or (
            size > limit and max(map(len, events), default=0) > limit
        ):
            raise OversizedEventError(f"an event is larger than {limit} bytes")
        return events


def payload(event: bytes) -> bytes | None:
    """The event's data: its `data` fields joined by line feeds; None where it has none."""
    fields = [value for name, value in _fields(event) if name == b"data"]
    return b"\n".join(fields) if fields else None


def kind(event: bytes) -> bytes | None:
    """The event's name, of its last `event` field; None where it has none."""
    names = [value for name, value in _fields(event) if name == b"event"]
    return names[-1] if names else None


def _fields(event: bytes) -> list[tuple[bytes, bytes]]:
    fields = []
    lines = event.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for line in lines.split(b"\n"):
        name, _, value = line.partition(b":")
        if name:  # a comment begins with the colon
            fields.append((name, value.removeprefix(b" ")))
    return fields
