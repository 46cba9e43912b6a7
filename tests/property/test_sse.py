"""Splitting events: nothing lost, nothing changed, and the same wherever the reads were split."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends.sse import OversizedEventError, Splitter, kind, payload

LINE_ENDS = [b"\n", b"\r\n", b"\r"]
STREAMS = [
    b'data: {"a": 1}\n\ndata: [DONE]\n\n',
    b'data: {"a": 1}\r\n\r\ndata: [DONE]\r\n\r\n',
    b"data: 1\r\rdata: 2\r\r: end\n\n",
    b"\xef\xbb\xbfdata: bom\n\n: ping\n\nevent: x\ndata: 1\ndata: 2\n\n",
    b"data: a\n\r\ndata: b\r\n\ndata: c\r\n\r\n\n\n\ndata: d\n\n",
    "data: grüße, 世界 🎉\n\ndata: ☃\r\n\r\n".encode(),
    b"data: no end",
]

fragments = st.lists(
    st.sampled_from(
        [b"data: ", b"data:", b": c", b"event: e", b"x", b"\xe2", b"\x98\x83", b"", *LINE_ENDS * 3]
    ),
    max_size=40,
).map(b"".join)


def events_of(stream: bytes, *cuts: int) -> tuple[list[bytes], bytes]:
    splitter = Splitter()
    bounds = [0, *sorted(cuts), len(stream)]
    events = []
    for start, end in itertools.pairwise(bounds):
        events += splitter.feed(stream[start:end])
    return events, splitter.rest()


def reference(stream: bytes) -> list[bytes]:
    """Line by line, as the specification reads, knowing the whole stream."""
    events, current, blank_after_line = [], b"", False
    for line in re.findall(rb"[^\r\n]*(?:\r\n|\n|\r(?!\Z))", stream):
        current += line
        is_blank = line in (b"\n", b"\r\n", b"\r")
        if is_blank and (blank_after_line or current != line):
            events.append(current)
            current, blank_after_line = b"", False
        else:
            blank_after_line = True
    return events


@pytest.mark.parametrize("stream", STREAMS)
def test_every_split_of_a_stream_into_two_reads_gives_the_same_events(stream: bytes) -> None:
    whole = events_of(stream)
    for at in range(len(stream) + 1):
        assert events_of(stream, at) == whole


@pytest.mark.parametrize("stream", STREAMS)
def test_every_split_into_three_reads_gives_the_same_events(stream: bytes) -> None:
    whole = events_of(stream)
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1):
            assert events_of(stream, first, second) == whole


@given(stream=fragments, cuts=st.lists(st.integers(0, 300), max_size=12))
@settings(max_examples=500)
def test_any_stream_in_any_reads_is_cut_as_the_line_reader_cuts_it(
    stream: bytes, cuts: list[int]
) -> None:
    events, rest = events_of(stream, *(min(cut, len(stream)) for cut in cuts))

    assert b"".join(events) + rest == stream
    assert events == reference(stream)


@given(stream=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_no_byte_is_lost_whatever_comes(stream: bytes, cuts: list[int]) -> None:
    events, rest = events_of(stream, *(min(cut, len(stream)) for cut in cuts))

    assert b"".join(events) + rest == stream


@given(values=st.lists(st.text(alphabet="abc: é", max_size=8), min_size=1, max_size=4))
def test_an_events_data_is_the_same_with_every_line_end(values: list[str]) -> None:
    for end in LINE_ENDS:
        event = end.join([b"event: e", *(b"data: " + v.encode() for v in values), b"", b""])
        assert payload(event) == "\n".join(values).encode()
        assert kind(event) == b"e"


@given(event=st.binary(max_size=200))
def test_reading_an_event_never_fails(event: bytes) -> None:
    payload(event)
    kind(event)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
@pytest.mark.parametrize("read", [1, 7, 1000])
def test_an_event_above_the_bound_is_refused_and_one_at_the_bound_is_not(
    end: bytes, read: int
) -> None:
    fitting = b"data: " + b"x" * (94 - len(end)) + end
    for event, fits in ((fitting, True), (b"x" + fitting, False)):
        splitter = Splitter(limit_bytes=100)
        pieces = [event[at : at + read] for at in range(0, len(event), read)]
        if fits:
            assert b"".join(e for piece in pieces for e in splitter.feed(piece)) == event
        else:
            with pytest.raises(OversizedEventError):
                [splitter.feed(piece) for piece in pieces]


def test_an_endless_event_is_refused_before_it_is_kept() -> None:
    splitter = Splitter(limit_bytes=1000)
    for _ in range(76):
        splitter.feed(b"data: and on\n")
    with pytest.raises(OversizedEventError):
        splitter.feed(b"data: and on\n")
