"""Time zones made to measure, so that a day ends when a test wants it to, 23 or 25 hours long."""

import struct
import zoneinfo
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

DAY_S = 86_400


def write_zone(directory: Path, name: str, *spans: tuple[int, int]) -> None:
    """A zone of (from when in UTC seconds, seconds east of Greenwich) spans, in order; the first
    holds from the beginning of time."""
    later = spans[1:]
    types = b"".join(struct.pack(">iBB", offset, 0, 0) for _, offset in spans)
    body = b"".join(struct.pack(">q", at) for at, _ in later)
    body += bytes(range(1, len(spans))) + types + b"XXX\0"
    empty = b"TZif2" + bytes(15) + struct.pack(">6I", 0, 0, 0, 0, 0, 0)
    head = b"TZif2" + bytes(15) + struct.pack(">6I", 0, 0, 0, len(later), len(spans), 4)
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(empty + head + body + b"\n\n")


def east_for_midnight_at(utc_s: int) -> int:
    """The offset of a zone in which that instant is midnight."""
    east = -utc_s % DAY_S
    return east - DAY_S if east > DAY_S // 2 else east


def day_of(hours: int, end_s: int) -> Sequence[tuple[int, int]]:
    """The spans of a zone whose present day has so many hours and ends at that instant: its clock
    was changed three hours after the day began."""
    east = east_for_midnight_at(end_s)
    changed_s = end_s - hours * 3600 + 3 * 3600
    return (0, east + (hours - 24) * 3600), (changed_s, east)


@contextmanager
def zones_in(directory: Path) -> Iterator[None]:
    """In this process the zones of a directory stand for those of the same names."""
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=[str(directory), *before])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        yield
    finally:
        zoneinfo.reset_tzpath(to=before)
        zoneinfo.ZoneInfo.clear_cache()
