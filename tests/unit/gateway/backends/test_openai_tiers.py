"""The service tier that a backend says it served, plain and streamed."""

import json
from typing import Any

import pytest

from gateway.backends.openai import OpenAI

USAGE = {"prompt_tokens": 10, "completion_tokens": 4}


def event(finish: str | None = None, text: str = "hello", **more: Any) -> bytes:
    delta = {} if finish else {"content": text}
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None}
    return f"data: {json.dumps(chunk | more)}\n\n".encode()


@pytest.mark.parametrize(
    ("told", "tier"),
    [
        ({"service_tier": "priority"}, "priority"),
        ({"service_tier": None}, None),
        ({"service_tier": 7}, None),
        ({"service_tier": "x" * 33}, None),
        ({"usage": USAGE | {"service_tier": "batch"}}, "batch"),
        ({}, None),
    ],
)
def test_the_tier_that_was_served_is_read_from_the_answer_or_its_usage(
    told: dict[str, Any], tier: str | None
) -> None:
    message = {"role": "assistant", "content": "hello"}
    whole = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": USAGE} | told
    meter = OpenAI().meter()
    meter.feed(event())
    meter.feed(event("stop", **told))

    assert OpenAI().read_answer(json.dumps(whole).encode()).service_tier == tier
    assert meter.service_tier == tier


def test_a_stream_tells_its_tier_with_its_first_texts_and_the_last_word_counts() -> None:
    meter = OpenAI().meter()
    texts = [event(text=word, service_tier="priority") for word in ("a", "b", "c")]

    assert meter.feed_texts(texts, 0) == 3
    began = meter.service_tier
    meter.feed(event("stop", service_tier="default"))

    assert (began, meter.service_tier) == ("priority", "default")
