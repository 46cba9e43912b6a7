"""A worker's local evidence: an append-only file that says what it set out to do and what came.

A record is in the page cache when the call returns, so a killed process loses nothing; a group
sync every 50 ms, on a thread of its own, bounds what a power cut can take. Segments rotate, and
`gateway.stores.spooled` reads them: another process, after this one is gone.

In a file, records follow one another; after a sync the next one begins a page of its own, and the
gap is zeros, as is everything behind the last. No record begins with a zero.
"""

import asyncio
import fcntl
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Final

import msgspec

from gateway import ids
from gateway.failpoints import failpoint
from gateway.stores.boot import boot_id
from gateway.stores.mapped import page_ceiling
from gateway.stores.segment import Segment
from gateway.stores.spool_keeper import Keeper
from policies.accounts import Account

FORMAT_VERSION: Final = 2
HEADER: Final = struct.Struct("<BII")  # version, length of the body, CRC-32 from the version on
LOCK_NAME: Final = "lock"
SEGMENT_BYTES: Final = 64 << 20
SEGMENT_US: Final = 60_000_000
RESERVE_BYTES: Final = 4 << 20


class SpoolUnavailable(Exception):  # noqa: N818 (the word of the interface)
    """The record could not be written (disk full, no access); nothing of it is in the file."""


class Intent(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A hold was granted, `at_us` by the store's clock; nothing has left for a backend. `meta` is
    the hold's own. With `unheld` accounts there is no hold: it was admitted without the store.
    `leases`, where any pay for it, stand beside them; an empty id: none on that account.
    """

    hold_id: str
    tag: str
    at_us: int
    meta: bytes
    unheld: tuple[Account, ...] = ()
    leases: tuple[str, ...] = ()


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
    """One attempt is over; `event` is its UsageEvent, to be posted on the `unheld` accounts, in
    place of so much of the `leases` beside them.
    """

    hold_id: str
    event: bytes
    unheld: tuple[Account, ...] = ()
    leases: tuple[str, ...] = ()


class Closed(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The hold was released: nothing was dispatched."""

    hold_id: str


Record = Intent | Dispatch | Checkpoint | Outcome | Closed

_head: Final = HEADER.pack
_encode: Final = msgspec.msgpack.Encoder().encode


class Spool:
    """The writing side. Belongs to one thread; every call raises SpoolUnavailable on failure.

    Each opening has a directory of its own, `{worker_id}.{unique}`, locked while its writer lives.
    """

    def __init__(self, path: Path, lock: int, keeper: Keeper, reserve: int) -> None:
        """Over a directory of its own and the descriptor of its lock; `open` makes both."""
        self.path = path
        self.name = path.name  # unique for ever: the holds of this writer bear it
        self._lock = lock
        self._keeper = keeper
        self._reserve = reserve
        self._segment: Segment | None = keeper.current

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
            keeper = Keeper(
                path, segment_bytes=segment_bytes, segment_us=segment_us, reserve=reserve_bytes
            )
        except OSError as fault:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
            raise SpoolUnavailable(f"cannot open a spool in {directory}: {fault}") from fault
        return cls(path, lock, keeper, reserve_bytes)

    def intent(
        self,
        hold_id: str,
        tag: str,
        at_us: int,
        meta: bytes,
        unheld: tuple[Account, ...] = (),
        leases: tuple[str, ...] = (),
    ) -> None:
        self._append(Intent(hold_id, tag, at_us, meta, unheld, leases), self._reserve)

    def dispatch(self, hold_id: str, attempt: int, backend_id: str, at_us: int) -> None:
        self._append(Dispatch(hold_id, attempt, backend_id, at_us), self._reserve)

    def checkpoint(self, hold_id: str, attempt: int, output_tokens: int, at_us: int) -> None:
        self._append(Checkpoint(hold_id, attempt, output_tokens, at_us), self._reserve)

    def outcome(
        self,
        hold_id: str,
        event: bytes,
        unheld: tuple[Account, ...] = (),
        leases: tuple[str, ...] = (),
    ) -> None:
        """May spend the reserve, rather than lose what a request has cost."""
        self._append(Outcome(hold_id, event, unheld, leases), 0)

    def closed(self, hold_id: str) -> None:
        """May spend the reserve."""
        self._append(Closed(hold_id), 0)

    async def close(self) -> None:
        """Sync what is written and let the directory go; a job reads and removes the files."""
        if self._segment is None:
            return
        self._segment = None
        await asyncio.to_thread(self._keeper.stop)
        os.close(self._lock)

    def _append(self, record: Record, spared: int) -> None:
        """A copy into memory that is the file's: no system call, nothing to wait for."""
        body = _encode(record)
        data = _head(FORMAT_VERSION, len(body), zlib.crc32(body, FORMAT_VERSION)) + body
        segment = self._segment
        if segment is None:
            raise SpoolUnavailable("the spool is closed")
        if segment.asks:
            segment = self._attend()
        at = segment.at
        end = at + len(data)
        if end > segment.room - spared:
            raise SpoolUnavailable("the disk of the spool is full, or slower than what is written")
        segment.memory[at:end] = data
        segment.at = end

    def _attend(self) -> Segment:
        """Go on where the thread does not work, and wake it."""
        failpoint("spool.turns")
        segment = self._segment = self._keeper.take()
        segment.asks = False
        segment.at = page_ceiling(segment.at)
        self._keeper.wake()
        return segment


def frame(record: Record) -> bytes:
    """One record as it stands in the file."""
    body = _encode(record)
    return _head(FORMAT_VERSION, len(body), zlib.crc32(body, FORMAT_VERSION)) + body


def _made(path: Path) -> int:
    """Make the directory; the descriptor of its lock, ours for as long as it is open.

    It gets its name when it is locked, or a reader might take it for a dead writer's.
    """
    unnamed = path.with_name(f".{path.name}")
    unnamed.mkdir(parents=True, mode=0o700)
    fd = os.open(unnamed / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, boot_id().encode("ascii"))  # for `spooled.proves_absence`
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(path)
    except OSError:
        os.close(fd)
        raise
    return fd
