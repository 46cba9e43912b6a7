"""Streams put together: word for word the plain answer, and an end where the backend has none."""

import json
from typing import Any

import pytest

from billing.meters import Meters
from gateway.backends.openai import OpenAI
from tests import scripted_answers
from tests.scripted_answers import Asked, Script

DIALECT = OpenAI()
NOTICE = {"code": "insufficient_quota", "message": "the money is gone"}
MESSAGES = [{"role": "user", "content": "hello there"}]


def event(chunk: Any) -> bytes:
    return f"data: {json.dumps(chunk)}\n\n".encode()


def streamed(asked: Asked, script: Script) -> list[bytes]:
    return [event(chunk) for _, chunk in scripted_answers.events(asked, script, 1)]


def asked(operation: str = "chat", **fields: Any) -> Asked:
    given = {"messages": MESSAGES} if operation == "chat" else {"prompt": "hello"}
    options = {"stream": True, "stream_options": {"include_usage": True}}
    return Asked(operation, {"model": "m", "max_tokens": 40, **given, **options, **fields})


ANY = [
    Script(tokens=12),
    Script(tokens=99),
    Script(tokens=12, usage="missing"),
    Script(tokens=12, usage="continuous"),
    Script(tokens=0),
]
OF_CHATS = [Script(tokens=12, reasoning_tokens=5), Script(tokens=12, tool_call=True)]


@pytest.mark.parametrize(
    ("operation", "script"),
    [("chat", one) for one in ANY + OF_CHATS] + [("completions", one) for one in ANY],
)
@pytest.mark.parametrize("choices", [1, 3])
def test_a_stream_put_together_is_the_plain_answer(
    operation: str, script: Script, choices: int
) -> None:
    request = asked(operation, n=choices)
    whole = DIALECT.whole(operation)
    for each in [b": keep-alive\n\n", *streamed(request, script), b"data: [DONE]\n\n"]:
        whole.add(each)

    assert json.loads(whole.body()) == scripted_plain(request, script)


def scripted_plain(request: Asked, script: Script) -> Any:
    answer = scripted_answers.plain(request, script, 1)
    for choice in answer["choices"]:
        for call in choice.get("message", {}).get("tool_calls", ()):
            del call["index"]  # only a stream has a need for it
    return answer


def test_several_calls_of_tools_are_each_continued_by_their_place() -> None:
    whole = DIALECT.whole("chat")
    for calls in (
        [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"x"'}}],
        [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{"}}],
        [
            {
                "index": 0,
                "id": "a",
                "type": "function",
                "function": {"name": "f", "arguments": ":1}"},
            }
        ],
        [{"index": 1, "function": {"arguments": "}"}}],
    ):
        whole.add(event({"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": calls}}]}))
    whole.add(event({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}))

    (choice,) = json.loads(whole.body())["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_what_is_not_known_is_kept_and_lists_are_lengthened() -> None:
    whole = DIALECT.whole("chat")
    for word, more in (("a", {"system_fingerprint": "fp"}), ("b", {"timings": {"ms": 3}})):
        logprobs = {"content": [{"token": word, "logprob": -0.5, "bytes": [97]}], "refusal": None}
        choice = {"index": 0, "delta": {"content": word}, "logprobs": logprobs}
        whole.add(event({"id": "c", "created": 7, "model": "m", "choices": [choice], **more}))

    answer = json.loads(whole.body())
    assert (answer["system_fingerprint"], answer["timings"]) == ("fp", {"ms": 3})
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "ab"}
    assert [each["token"] for each in choice["logprobs"]["content"]] == ["a", "b"]
    assert choice["finish_reason"] == "stop"


def test_an_answer_that_was_cut_says_length_and_why_and_what_is_billed() -> None:
    whole = DIALECT.whole("chat")
    whole.add(event({"id": "c", "choices": [{"index": 1, "delta": {"content": "a"}}]}))
    whole.add(event({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}))

    answer = json.loads(whole.body(2, used=Meters(input=5, output=3), notice=NOTICE))

    assert [each["finish_reason"] for each in answer["choices"]] == ["length", "stop"]
    assert answer["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert answer["meterhouse"] == NOTICE


def ending(operation: str, usage_apart: bool) -> list[Any]:
    """Two choices, one of which had ended by itself."""
    cut = DIALECT.ending(operation)
    frame = {"id": "c", "created": 7, "model": "m", "padding": "x"}
    cut.note(event({**frame, "choices": [{"index": 0, "delta": {}, "text": "a"}]}), finish=False)
    cut.note(event({**frame, "choices": [{"index": 0, "finish_reason": "stop"}]}), finish=True)
    last = cut.events(2, Meters(input=5, output=3), NOTICE, usage_apart=usage_apart)
    *events, mark, rest = last.decode().split("\n\n")
    assert (mark, rest) == ("data: [DONE]", "")
    return [json.loads(each.removeprefix("data: ")) for each in events]


def test_a_stream_is_ended_with_length_a_notice_and_usage() -> None:
    (last,) = ending("chat", usage_apart=False)

    assert (last["id"], last["created"], last["model"]) == ("c", 7, "m")
    assert last["object"] == "chat.completion.chunk"
    assert last["choices"] == [
        {"index": 1, "delta": {}, "logprobs": None, "finish_reason": "length"}
    ]
    assert last["meterhouse"] == NOTICE
    assert last["usage"]["total_tokens"] == 8
    assert "padding" not in last


def test_who_asked_for_usage_gets_it_in_a_chunk_of_its_own() -> None:
    last, usage = ending("completions", usage_apart=True)

    assert last["choices"] == [
        {"index": 1, "text": "", "logprobs": None, "finish_reason": "length"}
    ]
    assert (last["meterhouse"], last["usage"]) == (NOTICE, None)
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 3)


def test_a_stream_that_said_nothing_can_be_ended_too() -> None:
    last = DIALECT.ending("chat").events(1, Meters(), NOTICE, usage_apart=False)

    assert b'"finish_reason":"length"' in last


def test_a_listening_meter_hears_what_it_counts() -> None:
    heard: list[str] = []
    meter = DIALECT.listening(heard)
    for each in streamed(asked(), Script(tokens=3, tool_call=True)):
        meter.feed(each)

    assert "".join(heard) == meter.generated_text()
    assert meter.chunks == 3
