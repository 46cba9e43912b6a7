"""What a client was answered, put aside while it is relayed; nothing of it survives the request
unless the answer is complete and a policy keeps it (gateway.dataplane.idempotency).
"""

from typing import Final

MOST_KEPT_BYTES: Final = 1024 * 1024


class Transcript:
    """The bytes of one answer, at most MOST_KEPT_BYTES; a longer one is not kept at all."""

    __slots__ = ("_complete", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._complete = False

    def add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= MOST_KEPT_BYTES:
            self._pieces.append(piece)
        else:
            self._pieces.clear()

    def end(self, last: bytes) -> None:
        """With the last of its bytes the answer is complete."""
        self.add(last)
        self._complete = True

    @property
    def body(self) -> bytes | None:
        """The whole answer; None when there is none to be kept."""
        if not self._complete or self._size > MOST_KEPT_BYTES:
            return None
        return b"".join(self._pieces)
