"""One file of a spool. The worker's thread copies records in; another thread does all that waits.

The writer owns `at`; the thread owns everything else and tells through `room` and `asks`.
"""

from pathlib import Path
from typing import Final

from gateway import clock
from gateway.stores.mapped import PAGE, MappedFile, page_ceiling, page_floor

AHEAD_BYTES: Final = 4 << 20  # half a second of 3,000 requests/s
_WRITABLE_AGAIN_BYTES: Final = 128 * PAGE
_LEAST_STEP: Final = 1 << 16


class Segment:
    """`at` is where the next record goes, `room` the end of what it may use.

    `asks`: the next record wakes the thread and starts a page of its own, because the thread is
    syncing the page of the last one, and a store into a page that is being written back waits.
    """

    __slots__ = (
        "_file",
        "_length",
        "_synced",
        "asks",
        "at",
        "memory",
        "path",
        "room",
        "started_us",
    )

    def __init__(self, path: Path, length: int) -> None:
        """Raises OSError and leaves nothing when the file cannot be made."""
        self.path = path
        self.started_us = clock.monotonic_us()
        self.asks = True
        self.at = 0
        self.room = 0
        self._length = page_ceiling(length)
        self._synced = 0
        self._file = MappedFile(path, self._length)
        self.memory = self._file.memory

    @property
    def is_synced(self) -> bool:
        return self._synced == self.at

    def make_room(self, ahead: int) -> bool:
        """Place for the next `ahead` bytes, or as much as the disk has. Whether it had that."""
        wanted = min(self._length, page_ceiling(self.at + ahead))
        if wanted - self.room < AHEAD_BYTES // 2 and self.room:
            return True
        step = wanted - self.room
        while self.room < wanted:
            more = min(step, wanted - self.room)
            try:
                self._file.allocate(self.room, self.room + more)
            except OSError:
                step = page_floor(more // 2)
                if step < _LEAST_STEP:
                    return False
            else:
                self.room += more
        return True

    def make_writable(self) -> None:
        """The pages that come next. Raises OSError: then none of them may be touched any more."""
        start = page_floor(self.at)
        try:
            self._file.make_writable(start, min(start + _WRITABLE_AGAIN_BYTES, self.room))
        except OSError:
            self._length = self.room = 0
            raise

    def sync(self) -> None:
        """What was written before the call is on disk after it."""
        self.asks = True  # before `at` is read: from here on the writer keeps off that page
        start, end = page_floor(self._synced), self.at
        if end > self._synced:
            self._file.sync(start, end)
            self._synced = end
            self._file.forget(start, page_floor(end))

    def close(self) -> None:
        """Give back what was not used."""
        self._file.close(self.at)
