"""Whatever a crash leaves of a spool, what is read is what was written, up to some record."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.stores import spooled
from gateway.stores.spool import (
    Checkpoint,
    Closed,
    Dispatch,
    Intent,
    Outcome,
    Record,
    frame,
)
from gateway.stores.spool_keeper import SEGMENT_SUFFIX
from tests.spooling import event

names = st.text(max_size=12)
numbers = st.integers(0, 2**53)
records: st.SearchStrategy[Record] = st.one_of(
    st.builds(Intent, names, names, numbers, st.binary(max_size=50)),
    st.builds(Dispatch, names, numbers, names, numbers),
    st.builds(Checkpoint, names, numbers, numbers, numbers),
    st.builds(Outcome, names, st.binary(max_size=50)),
    st.builds(Closed, names),
)


def scanned(data: bytes) -> spooled.Scan:
    with tempfile.TemporaryDirectory() as directory:
        segment = Path(directory) / f"000001{SEGMENT_SUFFIX}"
        segment.write_bytes(data)
        return spooled.scan(segment)


@given(st.lists(records, max_size=8), st.data())
@settings(deadline=None)
def test_a_cut_anywhere_leaves_every_whole_record(
    written: list[Record], data: st.DataObject
) -> None:
    frames = [frame(record) for record in written]
    whole = b"".join(frames)
    cut = data.draw(st.integers(0, len(whole)))
    scan = scanned(whole[:cut])
    ends = [len(b"".join(frames[: n + 1])) for n in range(len(frames))]
    kept = sum(end <= cut for end in ends)
    assert scan.records == tuple(written[:kept])
    assert scan.sound_bytes == sum(map(len, frames[:kept]))


@given(st.lists(st.tuples(records, st.booleans()), max_size=8), st.data())
@settings(deadline=None)
def test_a_writer_that_dies_anywhere_between_its_pages_leaves_every_whole_record(
    steps: list[tuple[Record, bool]], data: st.DataObject
) -> None:
    whole, ends = b"", []
    for record, starts_a_page in steps:
        if starts_a_page:
            whole = whole.ljust(-(-len(whole) // 4096) * 4096, b"\0")
        whole += frame(record)
        ends.append(len(whole))
    cut = data.draw(st.integers(0, len(whole)))
    scan = scanned(whole[:cut].ljust(len(whole) + 5000, b"\0"))
    expected = tuple(record for (record, _), end in zip(steps, ends, strict=True) if end <= cut)
    # A record that ends in zeros may be whole before its last byte is written.
    assert scan.records[: len(expected)] == expected
    assert scan.records == tuple(record for record, _ in steps[: len(scan.records)])


@given(st.lists(records, min_size=1, max_size=8), st.data())
@settings(deadline=None)
def test_a_changed_byte_never_changes_a_record(written: list[Record], data: st.DataObject) -> None:
    whole = bytearray(b"".join(frame(record) for record in written))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    read = scanned(bytes(whole)).records
    assert read == tuple(written[: len(read)])
    assert len(read) < len(written)


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_any_bytes_are_survived(junk: bytes) -> None:
    assert scanned(junk).sound_bytes <= len(junk)


@given(st.lists(st.sampled_from(["dispatch", "outcome", "closed"]), max_size=6), st.integers(1, 3))
def test_a_request_is_open_exactly_while_something_of_it_is_unknown(
    steps: list[str], attempts: int
) -> None:
    told: list[Record] = [Intent("r", "s00", 1, b"")]
    dispatched, ended, closed = set(), set(), False
    for n, step in enumerate(steps):
        attempt = n % attempts
        if step == "dispatch":
            told.append(Dispatch("r", attempt, "be", 1))
            dispatched.add(attempt)
        elif step == "outcome":
            told.append(Outcome("r", event("r", attempt)))
            ended.add(attempt)
        else:
            told.append(Closed("r"))
            closed = True
    expected = not closed and (not ended or not dispatched <= ended)
    assert ("r" in spooled.open_requests(told)) == expected
