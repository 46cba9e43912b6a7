"""The thread behind a spool: it syncs what was written and makes ready what will be.

The writer never waits for it. Where it cannot keep up, the writer runs out of room and says so.
"""

import contextlib
import errno
import logging
import os
import threading
from pathlib import Path
from typing import Final

from gateway import clock
from gateway.failpoints import failpoint
from gateway.stores.segment import AHEAD_BYTES, Segment

SEGMENT_SUFFIX: Final = ".spool"
SYNC_EVERY_S: Final = 0.05
LOOK_EVERY_S: Final = 1.0  # for room on a full disk, and for a record that just missed a sync

_LOG: Final = logging.getLogger(__name__)


class Keeper:
    """Of one spool directory. `current` is the writer's; `offered`, if any, takes its place with
    the writer's next record.
    """

    def __init__(self, path: Path, *, segment_bytes: int, segment_us: int, reserve: int) -> None:
        """Raises OSError if the disk does not even have the reserve."""
        self._path = path
        self._segment_bytes = segment_bytes
        self._segment_us = segment_us
        self._reserve = reserve
        self._number = 0
        self._failed = False  # what was not synced is in doubt: another segment is due
        self._is_full = False
        self._retired: list[Segment] = []
        self._work = threading.Event()
        self._stopped = threading.Event()
        self.offered: Segment | None = None
        self.current = self._made()
        self._thread = threading.Thread(target=self._run, name="spool-sync", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Something was written."""
        self._work.set()

    def take(self) -> Segment:
        """For the writer: the segment to write to from now on."""
        if (fresh := self.offered) is not None:
            before, self.current = self.current, fresh
            self._retired.append(before)  # only now: the thread closes what is retired
            self.offered = None
        return self.current

    def stop(self) -> None:
        """Returns when everything is on disk. The writer must have ended."""
        self._stopped.set()
        self._work.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._work.wait(LOOK_EVERY_S)
            self._stopped.wait(SYNC_EVERY_S)
            self._work.clear()
            self._tend()
        self._end()

    def _tend(self) -> None:
        try:
            self._finish_retired()
            current = self.current
            has_room = current.make_room(AHEAD_BYTES + self._reserve)
            if not current.is_synced:
                current.make_writable()
                failpoint("spool.syncs")
                current.sync()
        except OSError:
            self._failed = True
            _LOG.exception("the spool could not be synced to disk")
            return
        if self.offered is None and self._is_due(current):
            has_room = self._offer(current) and has_room
        self._tell(is_full=not has_room)

    def _offer(self, current: Segment) -> bool:
        try:
            self.offered = self._made()
        except OSError as fault:
            if not self._is_full:
                _LOG.error("no new segment of the spool can be started: %s", fault)
            return False
        failpoint("spool.rotates")
        current.asks = True
        self._failed = False
        return True

    def _is_due(self, segment: Segment) -> bool:
        if segment.at == 0:
            return self._failed
        aged = clock.monotonic_us() - segment.started_us >= self._segment_us
        return self._failed or aged or segment.at >= self._segment_bytes

    def _made(self) -> Segment:
        """A segment whose name and first blocks are on disk. Raises OSError and leaves nothing."""
        name = f"{self._number + 1:06d}{SEGMENT_SUFFIX}"
        ahead = AHEAD_BYTES + self._reserve
        segment = Segment(self._path / name, self._segment_bytes + ahead)
        try:
            segment.make_room(ahead)
            _sync_directory(self._path)
        except OSError:
            _remove(segment)
            raise
        if segment.room <= self._reserve:
            _remove(segment)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._number += 1
        return segment

    def _finish_retired(self) -> None:
        while self._retired:
            segment = self._retired[0]
            try:
                segment.sync()
            finally:
                del self._retired[0]
                segment.close()

    def _tell(self, *, is_full: bool) -> None:
        if is_full and not self._is_full:
            _LOG.error("the disk of the spool is full: no new requests, outcomes go to its reserve")
        elif self._is_full and not is_full:
            _LOG.warning("the spool has its reserve back")
        self._is_full = is_full

    def _end(self) -> None:
        self._retired.append(self.current)
        try:
            self._finish_retired()
        except OSError:
            _LOG.exception("the spool could not be synced to disk")
        if (unused := self.offered) is not None:
            _remove(unused)


def _remove(segment: Segment) -> None:
    with contextlib.suppress(OSError):
        segment.close()
        segment.path.unlink()


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
