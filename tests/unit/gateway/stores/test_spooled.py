"""Reading spools: open requests, torn tails, what may be deleted and when."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.stores import spooled
from gateway.stores.spool import Checkpoint, Closed, Dispatch, Intent, Outcome, Spool
from tests.running import run
from tests.spooling import event

INTENT = Intent("req_1", "s00", 5, b"meta")
FIRST, SECOND = Dispatch("req_1", 1, "be_1", 6), Dispatch("req_1", 2, "be_2", 7)


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
    spool = Spool.open(tmp_path, "data-0", reserve_bytes=0)
    spool.closed("req_1")
    spool.closed("req_2")
    run(spool.close())
    (segment,) = spooled.segments(spool.path)
    whole = segment.read_bytes()
    for length in range(len(whole) // 2, len(whole)):
        segment.write_bytes(whole[:length])
        scan = spooled.scan(segment)
        assert scan.records == (Closed("req_1"),)
        assert (scan.sound_bytes, scan.total_bytes) == (len(whole) // 2, length)


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


def test_acknowledged_segments_go_oldest_first_up_to_the_first_that_is_needed(
    tmp_path: Path,
) -> None:
    spool = Spool.open(tmp_path, "data-0", reserve_bytes=0, segment_us=0)  # one record a segment
    for hold_id in ("req_1", "req_2", "req_3"):
        spool.intent(hold_id, "s00", 1, b"")
        spool.dispatch(hold_id, 1, "be_1", 1)
        if hold_id != "req_2":
            spool.outcome(hold_id, event(hold_id, 1))
    asked: list[bytes] = []

    def recorded(events: Sequence[bytes]) -> bool:
        asked.extend(events)
        return True

    assert spooled.delete_acknowledged(spool.path, recorded) == 3  # req_2 is open
    assert asked == [event("req_1", 1)]
    spool.outcome("req_2", event("req_2", 1))
    assert spooled.delete_acknowledged(spool.path, lambda events: not events) == 4
    assert spooled.delete_acknowledged(spool.path, recorded) == 1  # the last is being written
    run(spool.close())
    assert spooled.delete_acknowledged(spool.path, recorded) == 1
    assert spooled.segments(spool.path) == ()


def test_no_directory_means_no_spools(tmp_path: Path) -> None:
    assert spooled.writers(tmp_path / "none") == ()
