"""A meter that reads the texts of a stream in one go finds what it finds event by event."""

import json
from typing import Any

import msgspec
import pytest
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


# What stands where the text of an event would: strings of every kind, and what only looks like one.
STRINGS = st.one_of(
    st.text(max_size=8).map(msgspec.json.encode),
    st.text(st.characters(codec="ascii"), max_size=4).map(lambda text: json.dumps(text).encode()),
    st.text(max_size=4).map(lambda text: json.dumps(text).encode()),  # escaped
    st.sampled_from(
        [
            b'"a","content":"b"', b'"a"', b' "a" ', b'"a\nb"', b"null", b"7", b'"', b'""', b"",
            b'"a"}', b'"a","tool_calls":[{}]', b'"\\ud800"', b'"\xff"', b'"a\\"', b'"\\u0041"',
            b'"a","b"', b'"a', b'b"', b'"a"\n', b'"a",\n"b"', b'"a"],["b"',
            b'{"content":"a"}', b'"a\n\nb"', b'"a"}}],"usage":{},"x":[{"y":{"z":"a"',
        ]
    ),
)  # fmt: skip
AROUND = st.tuples(
    st.sampled_from(
        [
            b'data: {"choices":[{"delta":{"content":',
            b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":',
            b'data: {"choices": [{"delta": {"content": ',
            b'data: {"meta":{"content":"a"},"choices":[{"delta":{"content":',
            b'data: {"content":"a","choices":[{"delta":{"content":',
            b'data: {"choices":[{"delta":{"content":"a","content":',
            b'data: {"choices":[{"delta":{"note":"\\"content\\":","content":',
            b'data:{"choices":[{"delta":{"content":',
            b'event: error\ndata: {"choices":[{"delta":{"content":',
        ]
    ),
    st.sampled_from(
        [
            b'},"finish_reason":null}],"usage":null}\n\n',
            b"}}]}\n\n",
            b"}}]}\r\n\r\n",
            b',"content":"last"}}]}\n\n',
            b',"content":"a"}}]}\n\n',
            b',"refusal":"no"}}]}\n\n',
            b'}}],"error":{"code":"x"}}\n\n',
            b'}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n',
            b"}}]}",
            b"}}\n\n",
        ]
    ),
)
ALIKE = st.lists(AROUND, min_size=1, max_size=3).flatmap(
    lambda arounds: st.lists(
        st.builds(
            lambda around, text: around[0] + text + around[1], st.sampled_from(arounds), STRINGS
        ),
        max_size=12,
    )
)


@given(ALIKE, st.integers(1, 12))
def test_events_that_differ_in_their_text_alone_are_metered_as_if_each_were_the_first(
    events: list[bytes], together_at_most: int
) -> None:
    assert metered(events, together_at_most) == metered(events, 0)


def metered(events: list[bytes], together_at_most: int) -> tuple[object, ...]:
    """0: each alone, the long way."""
    meter = OpenAIMeter()
    if not together_at_most:
        for one in events:
            meter.feed(one)
        return found(meter)
    for begin in range(0, len(events), together_at_most):
        some = events[begin : begin + together_at_most]
        at = 0
        while (at := meter.feed_texts(some, at)) < len(some):
            meter.feed(some[at])
            at += 1
    return found(meter)


@pytest.mark.parametrize(
    "strings",
    [
        [b'"a"', b'"b","c"', b'"d"'],
        [b'"a"', b'"b","c"', b'"d', b'e"', b'"f"'],
        [b'"a"', b'"b",\n"c"', b'"d', b'e"', b'"f"'],
        [b'"a"', b'"b"],["c"', b'"d"'],
        [b'"a"', b'"b\\', b'"', b'"c"'],
        [b'"a"', b"", b'"b","c"', b'"d"'],
        [b'"a"', b'""', b'"b"', b'"\\u0041"'],
    ],
)
def test_strings_that_only_together_look_like_strings_are_read_one_by_one(
    strings: list[bytes],
) -> None:
    frame = b'data: {"choices":[{"delta":{"content":%b}}]}\n\n'
    events = [frame % string for string in (b'"first"', b'"second"', *strings)]

    assert metered(events, len(events)) == metered(events, 0)


def test_an_event_that_is_as_long_as_those_around_it_is_not_taken_for_one_of_them() -> None:
    text, other = ({"choices": [{name: {"content": "a"}}]} for name in ("delta", "other"))
    events = [event(b"data: ", one) for one in (text, text, text, other, text, text)]

    assert metered(events, len(events)) == metered(events, 0)
    assert metered(events, len(events))[1:3] == (5, 5)


def test_what_events_have_in_common_is_learned_and_only_their_text_decoded() -> None:
    meter = OpenAIMeter()
    same = [event(b"data: ", {"choices": [{"delta": {"content": word}}]}) for word in "abc"]

    assert meter.feed_texts(same[:2], 0) == 2
    alike = meter._alike

    assert [alike._text_of(one) for one in same] == [b'"a"', b'"b"', b'"c"']
    assert all(one.startswith(alike._opening) and one.endswith(alike._closing) for one in same)
    assert meter.feed_texts(same, 2) == 3
    assert meter.generated_text() == "abc"
