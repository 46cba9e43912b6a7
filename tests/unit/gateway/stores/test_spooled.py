"""Reading spools: open requests, torn tails, what may be deleted and when."""

import contextlib
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.stores import spooled
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
    Spool,
    frame,
)
from tests.running import run
from tests.spooling import add_segment, event, living_spool

INTENT = Intent("req_1", "s00", 5, b"meta")
FIRST, SECOND = Dispatch("req_1", 1, "be_1", 6), Dispatch("req_1", 2, "be_2", 7)


def written(directory: Path, content: bytes) -> Path:
    segment = directory / "000001.spool"
    segment.write_bytes(content)
    return segment


def test_a_request_is_open_until_every_dispatched_attempt_has_its_outcome() -> None:
    first, second = (Outcome("req_1", event("req_1", n)) for n in (1, 2))
    told = [INTENT, FIRST, SECOND]
    assert spooled.open_requests(told)["req_1"].unanswered == (FIRST, SECOND)
    assert spooled.open_requests([*told, first])["req_1"].unanswered == (SECOND,)
    assert spooled.open_requests([*told, first, second]) == {}


def test_a_request_that_was_never_dispatched_is_open_with_nothing_unanswered() -> None:
    assert spooled.open_requests([INTENT])["req_1"] == spooled.OpenRequest("req_1", INTENT, (), ())
    assert spooled.open_requests([INTENT, Closed("req_1")]) == {}


def test_the_latest_checkpoint_of_an_attempt_counts() -> None:
    old, new = Checkpoint("req_1", 1, 256, 8), Checkpoint("req_1", 1, 512, 9)
    assert spooled.open_requests([INTENT, FIRST, old, new])["req_1"].checkpoints == (new,)


def test_a_torn_tail_is_passed_over_and_measured(tmp_path: Path) -> None:
    one, two = frame(Closed("req_1")), frame(Closed("req_2"))
    for length in range(len(two)):
        torn = two[:length].rstrip(b"\0")
        for behind in (b"", bytes(6000)):  # a short file, and one that was made large beforehand
            scan = spooled.scan(written(tmp_path, one + torn + behind))
            assert scan.records == (Closed("req_1"),)
            assert (scan.sound_bytes, scan.total_bytes) == (len(one), len(one) + len(torn))


def test_a_gap_up_to_the_next_page_is_passed_over(tmp_path: Path) -> None:
    one, two = frame(Closed("req_1")), frame(Closed("req_2"))
    for gap in (4096, 8192):
        scan = spooled.scan(written(tmp_path, one.ljust(gap, b"\0") + two + bytes(9000)))
        assert scan.records == (Closed("req_1"), Closed("req_2"))
        assert scan.sound_bytes == scan.total_bytes == gap + len(two)


def test_a_page_that_never_reached_the_disk_brings_nothing_false_with_it(tmp_path: Path) -> None:
    whole = b"".join(frame(Intent(f"req_{n}", "s00", n, b"m" * 90)) for n in range(200))
    holed = whole[:4096] + bytes(4096) + whole[8192:]
    records = spooled.scan(written(tmp_path, holed)).records
    assert [record.hold_id for record in records] == [f"req_{n}" for n in range(len(records))]
    assert len(records) == len(spooled.scan(written(tmp_path, whole[:4096])).records)


def test_what_the_last_version_wrote_is_read(tmp_path: Path) -> None:
    records = [INTENT, FIRST, Outcome("req_1", event("req_1", 1))]
    bodies = [frame(record)[HEADER.size :] for record in records]
    old = b"".join(HEADER.pack(1, len(body), zlib.crc32(body)) + body for body in bodies)
    assert spooled.scan(written(tmp_path, old)) == spooled.Scan(tuple(records), len(old), len(old))
    unknown = bytes([FORMAT_VERSION + 1]) + frame(FIRST)[1:]
    assert spooled.scan(written(tmp_path, old + unknown)).sound_bytes == len(old)


def test_only_one_reader_adopts_a_dead_spool_and_none_a_living_one(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "data-0", reserve_bytes=0)
    with pytest.raises(spooled.WriterAlive), spooled.adopted(spool.path):
        pass
    run(spool.close())
    with spooled.adopted(spool.path) as mine:
        with pytest.raises(spooled.WriterAlive), spooled.adopted(spool.path):
            pass
        spooled.discard(mine)
    assert spooled.writers(tmp_path) == ()


def test_a_reader_never_comes_between_a_new_writer_and_its_lock(tmp_path: Path) -> None:
    done = threading.Event()
    adopted: list[Path] = []

    def adopt_all() -> None:
        while not done.is_set():
            for writer in spooled.writers(tmp_path):
                with contextlib.suppress(spooled.WriterAlive), spooled.adopted(writer):
                    adopted.append(writer)

    readers = [threading.Thread(target=adopt_all) for _ in range(2)]
    for reader in readers:
        reader.start()
    spools = [Spool.open(tmp_path, "data-0", reserve_bytes=0) for _ in range(40)]
    done.set()
    for reader in readers:
        reader.join()
    assert adopted == []
    for spool in spools:
        run(spool.close())


def test_a_dead_spool_is_given_to_one_of_many_readers(tmp_path: Path) -> None:
    dead = [tmp_path / f"data-0.w_{n:02d}" for n in range(60)]
    for writer in dead:
        writer.mkdir()
        (writer / LOCK_NAME).touch()
    taken: list[Path] = []

    def take_all(_: int) -> None:
        for writer in dead:
            with contextlib.suppress(spooled.WriterAlive), spooled.adopted(writer):
                taken.append(writer)
                spooled.discard(writer)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(take_all, range(4)))
    assert sorted(taken) == dead
    assert spooled.writers(tmp_path) == ()


def test_acknowledged_segments_go_oldest_first_up_to_the_first_that_is_needed(
    tmp_path: Path,
) -> None:
    asked: list[bytes] = []

    def recorded(events: Sequence[bytes]) -> bool:
        asked.extend(events)
        return True

    def story(hold_id: str) -> list[Record]:
        return [Intent(hold_id, "s00", 1, b""), Dispatch(hold_id, 1, "be_1", 1)]

    ends = [Outcome(f"req_{n}", event(f"req_{n}", 1)) for n in (1, 2, 3)]
    parts = [story("req_1"), [ends[0]], story("req_2"), story("req_3"), [ends[2]]]
    with living_spool(tmp_path, parts) as writer:
        assert spooled.delete_acknowledged(writer, recorded) == 2  # req_2 is open
        assert asked == [event("req_1", 1)]
        add_segment(writer, 6, [ends[1]])
        assert spooled.delete_acknowledged(writer, lambda events: not events) == 2
        assert spooled.delete_acknowledged(writer, recorded) == 1  # the last is being written
    assert spooled.delete_acknowledged(writer, recorded) == 1
    assert spooled.segments(writer) == ()


def test_a_living_writer_keeps_the_segment_it_is_at_and_the_one_made_ready(tmp_path: Path) -> None:
    with living_spool(tmp_path, [[Closed("req_1")], [Closed("req_2")], []]) as writer:
        assert spooled.delete_acknowledged(writer, lambda _: True) == 1
        assert spooled.delete_acknowledged(writer, lambda _: True) == 0
        assert len(spooled.segments(writer)) == 2


def test_no_directory_means_no_spools(tmp_path: Path) -> None:
    assert spooled.writers(tmp_path / "none") == ()
