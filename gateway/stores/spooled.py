"""Reading spools: whose writer is alive, what stands in their segments, what may be deleted."""

import contextlib
import fcntl
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from billing.usage import DECODER
from gateway.failpoints import failpoint
from gateway.stores.boot import boot_id
from gateway.stores.spool import (
    FORMAT_VERSION,
    HEADER,
    LOCK_NAME,
    Checkpoint,
    Closed,
    Dispatch,
    Intent,
    Outcome,
    Record,
)
from gateway.stores.spool_keeper import SEGMENT_SUFFIX

_CHECKED_FROM: Final = {FORMAT_VERSION: FORMAT_VERSION, 1: 0}  # where a version's CRC-32 begins
_PAGE: Final = 4096  # of the writer's machine it may be a multiple of this
_AT_ONCE: Final = 1 << 20
_NOTHING: Final = bytes(_AT_ONCE)
_WRITTEN: Final = re.compile(rb"[^\0]")

_decode: Final = msgspec.msgpack.Decoder(Record).decode


class WriterAlive(Exception):  # noqa: N818 (a state, met by whoever comes too early)
    """The spool's writer still runs (or another reader has adopted it)."""


class Scan(msgspec.Struct, frozen=True):
    """One segment. Behind `sound_bytes` nothing can be read: a torn tail, or damage, or nothing was
    written there; `total_bytes` tells, it ends with the last byte that is not zero.
    """

    records: tuple[Record, ...]
    sound_bytes: int
    total_bytes: int


class OpenRequest(msgspec.Struct, frozen=True):
    """A request whose end the spool does not know.

    `intent` is None when its segment is gone; `unanswered` are the attempts that were dispatched
    and have no outcome: none means that nothing of it can have reached a backend.
    """

    hold_id: str
    intent: Intent | None
    unanswered: tuple[Dispatch, ...]
    checkpoints: tuple[Checkpoint, ...]  # the latest of each attempt


def writers(directory: Path) -> tuple[Path, ...]:
    """Every spool under `directory`, oldest first within a worker."""
    if not directory.is_dir():
        return ()
    named = (path for path in directory.iterdir() if not path.name.startswith("."))
    return tuple(sorted(path for path in named if (path / LOCK_NAME).exists()))


def is_alive(writer: Path) -> bool:
    """Whether the process that writes this spool still runs."""
    try:
        with adopted(writer):
            return False
    except WriterAlive:
        return True


def proves_absence(writer: Path) -> bool:
    """Whether what this spool does not say did not happen. Not so when a part of it cannot be read,
    or when the machine went down under its writer: the last 50 ms may not have reached the disk.
    """
    try:
        written_at = (writer / LOCK_NAME).read_text("ascii")
        scans = [scan(segment) for segment in segments(writer)]
    except OSError:
        return False
    whole = all(one.sound_bytes == one.total_bytes for one in scans)
    return whole and written_at != "" and written_at == boot_id()


@contextlib.contextmanager
def adopted(writer: Path) -> Iterator[Path]:
    """The spool of a dead writer, for this process alone. Raises WriterAlive."""
    try:
        fd = os.open(writer / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError as gone:
        raise WriterAlive(f"{writer.name} was taken away by another reader") from gone
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as held:
            raise WriterAlive(f"{writer.name} is in use") from held
        if not (writer / LOCK_NAME).exists():
            raise WriterAlive(f"{writer.name} was taken away by another reader")
        yield writer
    finally:
        os.close(fd)


def segments(writer: Path) -> tuple[Path, ...]:
    """Its files, oldest first. A living writer is still at work on the last one."""
    return tuple(sorted(writer.glob(f"*{SEGMENT_SUFFIX}")))


def scan(segment: Path) -> Scan:
    """All that can be read of one segment."""
    data = _content(segment)
    records: list[Record] = []
    at = sound = 0
    while at + HEADER.size <= len(data):
        if data[at] == 0:
            written = _WRITTEN.search(data, at)
            if written is None or written.start() % _PAGE:
                break
            at = written.start()
            continue
        version, length, checksum = HEADER.unpack_from(data, at)
        body = data[at + HEADER.size : at + HEADER.size + length]
        start = _CHECKED_FROM.get(version)
        if start is None or len(body) != length or zlib.crc32(body, start) != checksum:
            break
        try:
            records.append(_decode(body))
        except msgspec.MsgspecError:
            break
        at = sound = at + HEADER.size + length
    return Scan(tuple(records), sound, max(sound, len(data.rstrip(b"\0"))))


def _content(segment: Path) -> bytes:
    """A killed writer leaves a large file, most of it never written; that part is not read."""
    parts: list[bytes] = []
    with segment.open("rb", buffering=0) as file:
        while (part := file.read(_AT_ONCE)) and part != _NOTHING[: len(part)]:
            parts.append(part)
    return b"".join(parts)


def read(path: Path) -> Iterator[Record]:
    """The records of one segment, or of all segments of a writer, in the order they were written.

    A torn tail is passed over: its record was never acknowledged to anybody.
    """
    for segment in segments(path) if path.is_dir() else (path,):
        yield from scan(segment).records


def open_requests(records: Iterable[Record]) -> dict[str, OpenRequest]:
    """The requests that have begun and not ended, by hold id, in the order they began.

    A request has ended when it was closed, or when every dispatched attempt has its outcome.
    """
    begun: dict[str, _Story] = {}
    for record in records:
        story = begun.setdefault(record.hold_id, _Story())
        story.tell(record)
    return {hold_id: story.still_open(hold_id) for hold_id, story in begun.items() if story.is_open}


def delete_acknowledged(writer: Path, recorded: Callable[[Sequence[bytes]], bool]) -> int:
    """Delete the segments that are evidence of nothing any more; answers how many.

    Oldest first, up to the first that is still needed: one with an outcome that is not `recorded`
    in the ledger, or with a request that is open. Of a living writer the last with a record stays:
    it may be at work on that one still, with the next made ready.
    """
    paths = segments(writer)
    # Newest first: where a later one has records, the writer had left this one before we read it.
    written = [scan(path).records for path in reversed(paths)][::-1]
    spent = acknowledged(written, recorded, writer_lives=is_alive(writer))
    for path in paths[:spent]:
        failpoint("prune.deletes")
        path.unlink()
    return spent


def acknowledged(
    written: Sequence[Sequence[Record]],
    recorded: Callable[[Sequence[bytes]], bool],
    *,
    writer_lives: bool,
) -> int:
    """How many of a writer's segments, from the oldest on, are evidence of nothing any more."""
    still_open = open_requests(record for segment in written for record in segment)
    mine = written[: _last_written(written)] if writer_lives else written
    for number, segment in enumerate(mine):
        events = [record.event for record in segment if isinstance(record, Outcome)]
        if any(record.hold_id in still_open for record in segment) or not recorded(events):
            return number
    return len(mine)


def _last_written(written: Sequence[Sequence[Record]]) -> int:
    return max((number for number, segment in enumerate(written) if segment), default=0)


def discard(writer: Path) -> None:
    """Remove an adopted spool whole. Call it when everything in it is in the ledger."""
    shutil.rmtree(writer)


class _Story:
    """What the records say of one request."""

    __slots__ = ("checkpoints", "closed", "dispatched", "ended", "intent")

    def __init__(self) -> None:
        self.intent: Intent | None = None
        self.dispatched: dict[int, Dispatch] = {}
        self.checkpoints: dict[int, Checkpoint] = {}
        self.ended: set[int] = set()
        self.closed = False

    def tell(self, record: Record) -> None:
        match record:
            case Intent():
                self.intent = record
            case Dispatch():
                self.dispatched[record.attempt] = record
            case Checkpoint():
                self.checkpoints[record.attempt] = record
            case Outcome():
                self.ended.add(DECODER.decode(record.event).attempt)
            case Closed():
                self.closed = True

    @property
    def is_open(self) -> bool:
        if self.closed:
            return False
        return not self.ended or bool(self.dispatched.keys() - self.ended)

    def still_open(self, hold_id: str) -> OpenRequest:
        unanswered = tuple(d for n, d in sorted(self.dispatched.items()) if n not in self.ended)
        checkpoints = tuple(c for _, c in sorted(self.checkpoints.items()))
        return OpenRequest(hold_id, self.intent, unanswered, checkpoints)
