"""A meter that reads the texts of a stream in one go finds what it finds event by event."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.openai import OpenAIMeter

TEXTS = st.one_of(st.none(), st.text(max_size=3), st.integers(), st.just([{"text": "part"}]))
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": TEXTS,
        "reasoning_content": TEXTS,
        "reasoning": TEXTS,
        "refusal": TEXTS,
        "tool_calls": st.just([{"id": "1", "function": {"arguments": "{}"}}]),
        "function_call": st.just({"arguments": "{}"}),
    },
)
CHOICES = st.fixed_dictionaries(
    {"delta": DELTAS},
    optional={"index": st.integers(0, 2), "finish_reason": st.sampled_from([None, "stop", 7])},
)
USAGE = st.sampled_from([None, {"prompt_tokens": 3, "completion_tokens": 4}, "none", {}])
CHUNKS = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.one_of(st.none(), st.lists(CHOICES, max_size=2)),
        "usage": USAGE,
        "error": st.sampled_from([None, {"code": "x"}]),
        "object": st.sampled_from(["chat.completion.chunk", "error"]),
    },
)
PLAIN = st.builds(lambda text: {"choices": [{"delta": {"content": text}}]}, st.text(max_size=3))
PREFIXES = st.sampled_from(
    [b"data: ", b"data: ", b"data:", b": ", b"event: error\ndata: ", b"DATA: "]
)


def event(prefix: bytes, chunk: Any) -> bytes:
    return prefix + msgspec.json.encode(chunk) + b"\n\n"


EVENTS = st.lists(
    st.one_of(
        st.builds(event, st.just(b"data: "), PLAIN),
        st.builds(event, PREFIXES, st.one_of(PLAIN, CHUNKS)),
        st.sampled_from([b"data: [DONE]\n\n", b": alive\n\n", b"data: {\n\n", b"\n\n", b"data: "]),
    ),
    max_size=8,
)


def found(meter: OpenAIMeter) -> tuple[object, ...]:
    return (
        *(meter.reported, meter.text_bytes, meter.chunks, meter.finish_reasons),
        *(meter.done, meter.error_code, meter.generated_text()),
    )


@given(EVENTS)
def test_texts_read_in_one_go_are_metered_as_if_they_came_alone(events: list[bytes]) -> None:
    alone, together = OpenAIMeter(), OpenAIMeter()
    for one in events:
        alone.feed(one)

    at = 0
    while (at := together.feed_texts(events, at)) < len(events):
        together.feed(events[at])
        at += 1

    assert found(together) == found(alone)
