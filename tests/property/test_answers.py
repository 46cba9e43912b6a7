"""An answer that is read the short way says what it would have said the long way."""

import json
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.backends.openai import read_any
from gateway.backends.openai_plain import read_plain

COUNTS = st.one_of(
    *(st.none(), st.integers(-2, 40), st.booleans(), st.floats(0, 9), st.just(3.0)),
    *(st.integers(2**39, 2**42), st.text(max_size=3), st.just([])),
)
NOTHING_MUCH = st.sampled_from((None, "", [], {}, 0, False, "x", ["x"], {"a": "b"}))


def sometimes(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


DETAILS = sometimes(
    cached_tokens=COUNTS,
    cache_write_tokens=COUNTS,
    reasoning_tokens=COUNTS,
    audio_tokens=COUNTS,
    other=NOTHING_MUCH,
)
USAGE = sometimes(
    prompt_tokens=COUNTS,
    completion_tokens=COUNTS,
    total_tokens=COUNTS,
    prompt_tokens_details=st.one_of(DETAILS, NOTHING_MUCH),
    completion_tokens_details=st.one_of(DETAILS, NOTHING_MUCH),
    prompt_cache_hit_tokens=COUNTS,
    other=NOTHING_MUCH,
)
SAID = sometimes(
    role=st.just("assistant"),
    content=st.one_of(st.text(), NOTHING_MUCH),
    reasoning_content=NOTHING_MUCH,
    reasoning=NOTHING_MUCH,
    refusal=NOTHING_MUCH,
    tool_calls=NOTHING_MUCH,
    function_call=NOTHING_MUCH,
    annotations=NOTHING_MUCH,
)
CHOICES = sometimes(
    message=st.one_of(SAID, st.none()),
    delta=st.one_of(SAID, st.none()),
    text=NOTHING_MUCH,
    finish_reason=NOTHING_MUCH,
    index=COUNTS,
)
ANSWERS = sometimes(
    choices=st.one_of(st.lists(CHOICES, max_size=3), NOTHING_MUCH),
    usage=st.one_of(USAGE, NOTHING_MUCH),
    error=NOTHING_MUCH,
    data=NOTHING_MUCH,
    object=NOTHING_MUCH,
)
USUAL: dict[str, Any] = {
    "id": "x",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "hé"}, "finish_reason": "stop"}
    ],
    "usage": {
        "prompt_tokens": 30,
        "completion_tokens": 5,
        "total_tokens": 39,
        "prompt_tokens_details": {"cached_tokens": 7},
        "completion_tokens_details": {"reasoning_tokens": 4},
    },
}


def same(body: bytes) -> bool:
    plain = read_plain(body)
    return plain is None or plain == read_any(body)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(ANSWERS)
@example(USUAL)
def test_any_answer_that_is_taken_is_read_as_before(answer: dict[str, Any]) -> None:
    assert same(json.dumps(answer).encode())


@given(st.data())
def test_so_is_one_that_arrived_damaged(data: st.DataObject) -> None:
    body = bytearray(json.dumps(USUAL, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))

    assert same(bytes(body))


def test_the_usual_answer_is_taken() -> None:
    read = read_plain(json.dumps(USUAL).encode())

    assert read is not None
    assert (read.text, read.finish_reasons) == ("hé", ("stop",))
    assert read.reported is not None
    assert (read.reported.meters.all_input, read.reported.meters.output) == (30, 9)
