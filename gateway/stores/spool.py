"""A worker's local evidence: an append-only file that says what it set out to do and what came.

A record is in the page cache when the call returns, so a killed process loses nothing; a group
`fsync` every 50 ms, on a thread of its own, bounds what a power cut can take. Segments rotate, and
`gateway.stores.spooled` reads them: another process, after this one is gone.
"""

import asyncio
import fcntl
import logging
import os
import shutil
import struct
import threading
import zlib
from pathlib import Path
from typing import Final

import msgspec

from gateway import clock, ids

FORMAT_VERSION: Final = 1
HEADER: Final = struct.Struct("<BII")  # version, length of the body, CRC-32 of the body
SEGMENT_SUFFIX: Final = ".spool"
LOCK_NAME: Final = "lock"
RESERVE_NAME: Final = "reserve"
SEGMENT_BYTES: Final = 64 << 20
SEGMENT_US: Final = 60_000_000
SYNC_EVERY_S: Final = 0.05
RESERVE_BYTES: Final = 4 << 20

_LOG: Final = logging.getLogger(__name__)


class SpoolUnavailable(Exception):  # noqa: N818 (the word of the interface)
    """The record could not be written (disk full, no access); nothing of it is in the file."""


class Intent(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A hold was granted; nothing has left for a backend. `meta` is the hold's own."""

    hold_id: str
    tag: str
    at_us: int
    meta: bytes


class Dispatch(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The first byte of this attempt may leave from now on."""

    hold_id: str
    attempt: int
    backend_id: str
    at_us: int


class Checkpoint(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """At least so many output tokens have come back."""

    hold_id: str
    attempt: int
    output_tokens: int
    at_us: int


class Outcome(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """One attempt is over; `event` is its UsageEvent."""

    hold_id: str
    event: bytes


class Closed(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The hold was released: nothing was dispatched."""

    hold_id: str


Record = Intent | Dispatch | Checkpoint | Outcome | Closed

_encode: Final = msgspec.msgpack.Encoder().encode


class Spool:
    """The writing side. Belongs to one thread; every call raises SpoolUnavailable on failure.

    Each opening has a directory of its own, `{worker_id}.{unique}`, locked while its writer lives.
    """

    def __init__(
        self, path: Path, lock: int, *, segment_bytes: int, segment_us: int, reserve: int
    ) -> None:
        """Over a directory of its own and the descriptor of its lock; `open` makes both."""
        self.path = path
        self._segment_bytes = segment_bytes
        self._segment_us = segment_us
        self._reserve_bytes = reserve
        self._number = 0
        self._fd = -1
        self._size = 0
        self._started_us = 0
        self._has_reserve = False
        self._reserve_again_us = 0
        self._lock = lock
        self._reserve()
        self._syncer = _Syncer(path)
        self._rotate()

    @classmethod
    def open(
        cls,
        directory: Path,
        worker_id: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        segment_us: int = SEGMENT_US,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> "Spool":
        """A fresh spool under `directory`. `reserve_bytes` are set aside so that requests under way
        can still write their outcomes on a full disk, while new ones are refused.
        """
        path = Path(directory) / ids.new(f"{worker_id}.w")
        try:
            lock = _made(path)
        except OSError as fault:
            raise SpoolUnavailable(f"cannot open a spool in {directory}: {fault}") from fault
        try:
            return cls(
                path,
                lock,
                segment_bytes=segment_bytes,
                segment_us=segment_us,
                reserve=reserve_bytes,
            )
        except (OSError, SpoolUnavailable) as fault:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
            raise SpoolUnavailable(f"cannot open a spool in {directory}: {fault}") from fault

    def intent(self, hold_id: str, tag: str, at_us: int, meta: bytes) -> None:
        self._append(Intent(hold_id, tag, at_us, meta))

    def dispatch(self, hold_id: str, attempt: int, backend_id: str, at_us: int) -> None:
        self._append(Dispatch(hold_id, attempt, backend_id, at_us))

    def checkpoint(self, hold_id: str, attempt: int, output_tokens: int, at_us: int) -> None:
        self._append(Checkpoint(hold_id, attempt, output_tokens, at_us))

    def outcome(self, hold_id: str, event: bytes) -> None:
        self._append_surely(Outcome(hold_id, event))

    def closed(self, hold_id: str) -> None:
        self._append_surely(Closed(hold_id))

    async def close(self) -> None:
        """Sync what is written and let the directory go; a job reads and removes the files."""
        if self._fd < 0:
            return
        self._syncer.follow(-1)
        self._syncer.retire(self._fd)
        self._fd = -1
        await asyncio.to_thread(self._syncer.stop)
        os.close(self._lock)

    def _append(self, record: Record) -> None:
        if self._reserve_bytes and not self._has_reserve:
            self._reserve_or_refuse()
        self._write(frame(record))

    def _append_surely(self, record: Record) -> None:
        """Spend the reserve rather than lose what a request has cost."""
        try:
            self._write(frame(record))
        except SpoolUnavailable:
            if not self._has_reserve:
                raise
            (self.path / RESERVE_NAME).unlink(missing_ok=True)
            self._has_reserve = False
            _LOG.error("the disk of the spool is full: outcomes go to its reserve")
            self._write(frame(record))

    def _write(self, data: bytes) -> None:
        if self._fd < 0:
            raise SpoolUnavailable("the spool is closed")
        if self._is_due(len(data)):
            self._rotate()
        try:
            written = os.write(self._fd, data)
        except OSError as fault:
            self._mend()
            raise SpoolUnavailable(f"cannot write to the spool: {fault}") from fault
        if written != len(data):
            self._mend()
            raise SpoolUnavailable("the disk of the spool is full")
        self._size += written
        self._syncer.wrote()

    def _is_due(self, more: int) -> bool:
        if self._syncer.failed:
            return True
        if self._size == 0:
            return False
        over = self._size + more > self._segment_bytes
        return over or clock.monotonic_us() - self._started_us > self._segment_us

    def _mend(self) -> None:
        """Take half a record back: what follows a torn one would never be read."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._syncer.failed = True  # start another segment before the next record

    def _rotate(self) -> None:
        name = f"{self._number + 1:06d}{SEGMENT_SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            fd = os.open(self.path / name, flags, 0o600)
        except OSError as fault:
            raise SpoolUnavailable(f"cannot start a segment of the spool: {fault}") from fault
        before, self._fd = self._fd, fd
        self._number += 1
        self._size, self._started_us = 0, clock.monotonic_us()
        self._syncer.follow(fd)
        if before >= 0:
            self._syncer.retire(before)  # only after `follow`: the thread closes what is retired

    def _reserve_or_refuse(self) -> None:
        """Nothing new begins until there is a reserve again; look for it once a second."""
        now_us = clock.monotonic_us()
        if now_us < self._reserve_again_us:
            raise SpoolUnavailable("the disk of the spool is full")
        self._reserve_again_us = now_us + 1_000_000
        try:
            self._reserve()
        except OSError as fault:
            raise SpoolUnavailable(f"the disk of the spool is full: {fault}") from fault
        _LOG.warning("the spool has its reserve back")

    def _reserve(self) -> None:
        if not self._reserve_bytes:
            return
        path = self.path / RESERVE_NAME
        try:
            with path.open("wb") as file:
                for _ in range(0, self._reserve_bytes, 1 << 16):
                    file.write(bytes(1 << 16))  # written, not sparse: the blocks must be ours
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise
        self._has_reserve = True


def frame(record: Record) -> bytes:
    """One record as it stands in the file."""
    body = _encode(record)
    return HEADER.pack(FORMAT_VERSION, len(body), zlib.crc32(body)) + body


def _made(path: Path) -> int:
    """Make the directory; the descriptor of its lock, ours for as long as it is open.

    It gets its name when it is locked, or a reader might take it for a dead writer's.
    """
    unnamed = path.with_name(f".{path.name}")
    unnamed.mkdir(parents=True, mode=0o700)
    fd = os.open(unnamed / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(path)
    except OSError:
        os.close(fd)
        raise
    return fd


class _Syncer:
    """The thread that syncs: the current segment every 50 ms of writing, each retired one too."""

    def __init__(self, path: Path) -> None:
        self.failed = False  # what was not synced is in doubt: the writer starts another segment
        self._path = path
        self._fd = -1
        self._new = False  # a segment whose name is not on disk yet
        self._dirty = False
        self._retired: list[int] = []
        self._work = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spool-sync", daemon=True)
        self._thread.start()

    def wrote(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._work.set()

    def follow(self, fd: int) -> None:
        self._fd, self._new, self.failed = fd, True, False

    def retire(self, fd: int) -> None:
        self._retired.append(fd)
        self._work.set()

    def stop(self) -> None:
        self._stopped.set()
        self._work.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._work.wait()
            self._stopped.wait(SYNC_EVERY_S)
            self._work.clear()
            self._sync()
        self._sync()

    def _sync(self) -> None:
        try:
            if self._new:
                self._new = False
                _sync_directory(self._path)
            while self._retired:
                fd = self._retired.pop(0)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            if self._dirty:
                self._dirty = False
                if (fd := self._fd) >= 0:
                    os.fsync(fd)
        except OSError:
            self.failed = True
            _LOG.exception("the spool could not be synced to disk")


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
