"""One file of a spool: what the thread has made ready, and what the writer is told of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.stores.mapped import PAGE
from gateway.stores.segment import AHEAD_BYTES, Segment


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    made = Segment(tmp_path / "000001.spool", 3 * AHEAD_BYTES)
    yield made
    if not made.memory.closed:
        made.close()


def put(segment: Segment, data: bytes) -> None:
    segment.memory[segment.at : segment.at + len(data)] = data
    segment.at += len(data)


def test_there_is_no_room_before_there_are_blocks_on_disk(segment: Segment) -> None:
    assert segment.room == 0
    assert segment.make_room(AHEAD_BYTES)
    assert segment.room == AHEAD_BYTES
    assert segment.path.stat().st_blocks * 512 >= AHEAD_BYTES


def test_room_is_kept_ahead_of_the_writer_up_to_the_end(segment: Segment) -> None:
    segment.make_room(AHEAD_BYTES)
    segment.at = 1000
    segment.make_room(AHEAD_BYTES)
    assert segment.room == AHEAD_BYTES, "a little is not worth a call"
    segment.at = AHEAD_BYTES - 1000
    segment.make_room(AHEAD_BYTES)
    assert segment.room == 2 * AHEAD_BYTES
    segment.at = segment.room
    assert segment.make_room(4 * AHEAD_BYTES)
    assert segment.room == 3 * AHEAD_BYTES


def test_what_was_put_is_in_the_file_at_once(segment: Segment) -> None:
    segment.make_room(AHEAD_BYTES)
    segment.make_writable()
    put(segment, b"evidence")
    assert segment.path.read_bytes()[:9] == b"evidence\0"


def test_a_sync_asks_the_writer_off_the_page(segment: Segment) -> None:
    segment.make_room(AHEAD_BYTES)
    segment.make_writable()
    segment.asks = False
    put(segment, b"x" * (3 * PAGE + 5))
    assert not segment.is_synced
    segment.sync()
    assert segment.is_synced
    assert segment.asks
    put(segment, b"y")
    assert not segment.is_synced
    segment.sync()
    assert segment.path.read_bytes()[: 3 * PAGE + 7] == b"x" * (3 * PAGE + 5) + b"y\0"


def test_a_closed_segment_is_as_long_as_what_it_holds_and_takes_no_more(segment: Segment) -> None:
    segment.make_room(AHEAD_BYTES)
    put(segment, b"evidence")
    segment.sync()
    segment.close()
    assert segment.path.read_bytes() == b"evidence"
    with pytest.raises(ValueError, match="closed"):
        put(segment, b"late")


def test_a_segment_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "000001.spool").touch()
    with pytest.raises(FileExistsError):
        Segment(tmp_path / "000001.spool", PAGE)
    with pytest.raises(OSError, match=r"large|Invalid|allocate"):
        Segment(tmp_path / "000002.spool", 1 << 62)
    assert [path.name for path in tmp_path.iterdir()] == ["000001.spool"]
