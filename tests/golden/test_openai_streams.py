"""Whole streams in the shapes that known kinds of servers send, and what must be read from them."""

import json
from pathlib import Path

import msgspec
import pytest

from gateway.backends.openai import OpenAI
from gateway.backends.sse import Splitter

STREAMS = sorted((Path(__file__).parent / "openai").glob("*.sse"))


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("read", [1, 13, 1 << 20])
def test_a_stream_is_read_as_written_beside_it(path: Path, read: int) -> None:
    stream = path.read_bytes()
    splitter, meter = Splitter(), OpenAI().meter()
    events = []
    for at in range(0, len(stream), read):
        events += splitter.feed(stream[at : at + read])
    seen = [meter.feed(event) for event in events]

    assert b"".join(events) == stream
    assert not any(s.error or s.unreadable for s in seen)
    assert sum(s.text_bytes for s in seen) == meter.text_bytes
    assert {
        "meters": None if meter.reported is None else _named(meter.reported.meters),
        "reasoning": 0 if meter.reported is None else meter.reported.reasoning,
        "text": meter.generated_text(),
        "finish_reasons": list(meter.finish_reasons),
        "usage_only_events": sum(s.usage_only for s in seen),
        "done": meter.done,
    } == json.loads(path.with_suffix(".json").read_text())


def _named(meters: msgspec.Struct) -> dict[str, int]:
    return msgspec.structs.asdict(meters)
