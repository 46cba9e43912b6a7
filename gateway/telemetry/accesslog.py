"""One JSON line a request, from a fixed list of fields; written in blocks, off the loop."""

import fcntl
import os
from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway import clock
from gateway.telemetry.record import NOWHERE, RequestRecord

WAITING_LINES: Final = 20_000  # more than this and lines are dropped, and counted
ROTATE_BYTES: Final = 64 << 20
_STDOUT: Final = 1
_KINDS: Final = 4096  # of lines, remembered


class LineKind(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What the lines of many requests have in common. With the figures of `AccessLog._line` this is
    the whole allow-list: sizes, times, ids and names.
    """

    method: str
    route: str
    status: int
    code: str = ""
    error_type: str = ""
    tenant_id: str = ""
    team_id: str = ""
    key_id: str = ""
    operation: str = ""
    model: str = ""
    upstream_model: str = ""
    backend_id: str = ""
    backend_region: str = ""
    upstream_request_id: str = ""
    attempts: int = 0
    stream: bool = False
    end_by: str = ""
    end_phase: str = ""
    finish_reasons: tuple[str, ...] = ()
    provenance: str = ""
    currency: str = ""


class AccessLog:
    """`add` on the event loop, `flush` on another thread."""

    def __init__(self, destination: str) -> None:
        self._sink = _sink(destination)
        self._lines: deque[bytes] = deque()
        self._second = -1
        self._prefix = b""  # of the times of one second: to format it is dear
        self.dropped = 0

    def add(self, record: RequestRecord) -> None:
        if self._sink is None:
            return
        if len(self._lines) >= WAITING_LINES:
            self.dropped += 1
            return
        self._lines.append(self._line(record))

    def flush(self) -> None:
        """Writes what waits. A full disk or a closed pipe costs the lines, never the process."""
        count = len(self._lines)
        if self._sink is None or not count:
            return
        block = b"\n".join([self._lines.popleft() for _ in range(count)]) + b"\n"
        try:
            self._sink.write(block)
        except OSError:
            self.dropped += count

    def close(self) -> None:
        self.flush()
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def _line(self, record: RequestRecord) -> bytes:
        """The figures of one request, and behind them what is encoded once for its kind. Amounts
        are picos, as text.
        """
        second, micros = divmod(record.started_us, 1_000_000)
        if second != self._second:
            self._second = second
            self._prefix = clock.rfc3339(second * 1_000_000)[:-1].encode()
        return (
            b'{"time":"%b.%06dZ","request_id":"%b","trace_id":"%032x","duration_us":%d,'
            b'"overhead_us":%d%b%b,%b'
        ) % (
            self._prefix,
            micros,
            record.request_id.encode(),
            record.trace.trace_id,
            record.finished_us - record.started_us,
            record.overhead_us,
            b"" if record.ttft_us < 0 else b',"ttft_us":%d' % record.ttft_us,
            b"" if record.provenance is None else _used(record),
            _kind_of(record),
        )


def _used(record: RequestRecord) -> bytes:
    meters = record.meters
    written = meters.cache_write_5m + meters.cache_write_1h
    said = b',"input_tokens":%d,"output_tokens":%d,"charge_picos":"%d"' % (
        meters.all_input,
        meters.output,
        record.charge_picos,
    )
    if meters.cache_read:
        said += b',"cache_read_tokens":%d' % meters.cache_read
    return said + b',"cache_write_tokens":%d' % written if written else said


def _kind_of(record: RequestRecord) -> bytes:
    attempts, provenance = record.attempts, record.provenance
    last = attempts[-1] if attempts else NOWHERE
    return _encoded(
        record.method,
        record.route,
        record.status,
        record.code,
        record.error_type,
        record.tenant_id,
        record.team_id,
        record.key_id,
        record.operation,
        record.model,
        record.upstream_model,
        last.backend_id,
        last.region,
        last.upstream_request_id,
        len(attempts),
        record.stream if attempts else False,
        record.end_by,
        record.end_phase,
        record.finish_reasons,
        "" if provenance is None else provenance,
        "" if provenance is None else record.currency,
    )


@lru_cache(maxsize=_KINDS)
def _encoded(*kind: Any) -> bytes:
    """The end of a line: the fields of a kind, in their order."""
    return msgspec.json.encode(LineKind(*kind))[1:]


class _Descriptor:
    """Standard output; not ours to close."""

    def write(self, block: bytes) -> None:
        _write_all(_STDOUT, block)

    def close(self) -> None:
        pass


class _SharedFile:
    """One file for all processes of a home; at 64 MiB it becomes `.1`, and the former `.1` goes.

    The lock is on the file itself: whoever waited for it finds another file under the path and
    does not rotate again. The same look notices a file that someone else moved away.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = self._open()

    def write(self, block: bytes) -> None:
        if self._was_moved():
            self._reopen()
        if os.fstat(self._fd).st_size + len(block) > ROTATE_BYTES:
            self._rotate()
        if self._is_torn():
            block = b"\n" + block
        _write_all(self._fd, block)

    def close(self) -> None:
        os.close(self._fd)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def _reopen(self) -> None:
        """The new one is had before the old one goes: where there is none, the number of one that
        was closed would soon be that of another file, or of a client.
        """
        old, self._fd = self._fd, self._open()
        os.close(old)

    def _rotate(self) -> None:
        held = self._fd
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            if not self._was_moved():
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._reopen()
        except OSError:
            fcntl.flock(held, fcntl.LOCK_UN)  # or whoever comes next would wait for ever
            raise

    def _is_torn(self) -> bool:
        """Whether it ends in half a line, which is all that a full disk took."""
        size = os.fstat(self._fd).st_size
        return size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"

    def _was_moved(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return there.st_ino != os.fstat(self._fd).st_ino


def _sink(destination: str) -> _Descriptor | _SharedFile | None:
    if not destination:
        return None
    return _Descriptor() if destination == "-" else _SharedFile(Path(destination))


def _write_all(fd: int, block: bytes) -> None:
    """One write where the system takes it whole, so that lines of several processes do not mix."""
    while block:
        block = block[os.write(fd, block) :]
