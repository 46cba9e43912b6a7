"""What of a request is counted, and for how much."""

import asyncio
import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.dataplane.count import MOST_COUNTED, Tokeniser
from gateway.dataplane.envelope import fields_of
from gateway.dataplane.prompt import Prompt, count_prompt
from gateway.stores.sql.rows import Model
from policies.decision import Deny

MODEL = Model(id="m", name="chat", targets=(), image_tokens=2048)
BIG = "lorem ipsum dolor sit amet " * 300
USER = {"role": "user", "content": "x"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}}
PIECE = 10_000  # characters that are safe to count at once
FRAMES = 200  # tokens that JSON and template may add around a text


@pytest.fixture(scope="module")
def tokeniser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tokeniser]:
    made = Tokeniser(tmp_path_factory.mktemp("vocabularies"))
    yield made
    made.close()


def tokens_of(tokeniser: Tokeniser, text: str) -> int:
    """By pieces, so that no length is too long to be counted."""
    encoding = asyncio.run(tokeniser.aside(tokeniser._encoding, MODEL.encoding))
    pieces = range(0, len(text), PIECE)
    return sum(len(encoding.encode_ordinary(text[at : at + PIECE])) for at in pieces)


def counted(
    tokeniser: Tokeniser, operation: str = "chat", *, ascii_only: bool = False, **body: Any
) -> Prompt:
    fields = fields_of(json.dumps(body, ensure_ascii=ascii_only).encode())
    assert not isinstance(fields, Deny)
    return asyncio.run(count_prompt(tokeniser, MODEL, fields, operation, 77))


def assistant(**said: Any) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", "content": None} | said]}


CARRIERS: dict[str, dict[str, Any]] = {
    "content": {"messages": [USER | {"content": BIG}]},
    "a part": {"messages": [USER | {"content": [{"type": "text", "text": BIG}]}]},
    "a part that is a string": {"messages": [USER | {"content": [BIG]}]},
    "a part of a refusal": {
        "messages": [USER | {"content": [{"type": "refusal", "refusal": BIG}]}]
    },
    "a refusal": assistant(refusal=BIG),
    "thoughts": assistant(reasoning_content=BIG),
    "a name": {"messages": [USER | {"name": BIG}]},
    "arguments": assistant(tool_calls=[{"id": "c", "function": {"name": "f", "arguments": BIG}}]),
    "arguments as an object": assistant(tool_calls=[{"function": {"arguments": {"a": BIG}}}]),
    "the name of a function": assistant(tool_calls=[{"function": {"name": BIG}}]),
    "input of a custom tool": assistant(tool_calls=[{"custom": {"name": "f", "input": BIG}}]),
    "a legacy call": assistant(function_call={"name": "f", "arguments": BIG}),
    "tools": {"messages": [USER], "tools": [{"type": "function", "function": {"name": BIG}}]},
    "legacy functions": {"messages": [USER], "functions": [{"name": "f", "description": BIG}]},
    "a schema": {
        "messages": [USER],
        "response_format": {"type": "json_schema", "json_schema": {"description": BIG}},
    },
    "documents": {"messages": [USER], "documents": [{"text": BIG}]},
}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_text_counts_wherever_a_request_carries_it(tokeniser: Tokeniser, carrier: str) -> None:
    found = counted(tokeniser, **CARRIERS[carrier])
    assert 0 <= found.tokens - tokens_of(tokeniser, BIG) <= FRAMES
    assert found.exact


def test_what_the_schema_of_an_answer_says_is_not_expected_of_every_backend(
    tokeniser: Tokeniser,
) -> None:
    assert counted(tokeniser, **CARRIERS["a schema"]).least < FRAMES
    assert counted(tokeniser, **CARRIERS["arguments"]).least > tokens_of(tokeniser, BIG)


def test_a_completion_is_counted_with_what_comes_after_it(tokeniser: Tokeniser) -> None:
    found = counted(tokeniser, "completions", prompt=BIG, suffix=BIG)
    assert found.tokens >= 2 * tokens_of(tokeniser, BIG)
    assert counted(tokeniser, "completions", prompt=[1, 2, 3]).tokens == 3
    assert counted(tokeniser, "embeddings", input=[[1, 2], [3]]).tokens == 3


def test_blanks_and_escapes_in_the_json_of_tools_are_no_tokens(tokeniser: Tokeniser) -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "\u4e2d\u6587" * 200}}]
    plain = counted(tokeniser, messages=[USER], tools=tools)
    assert counted(tokeniser, ascii_only=True, messages=[USER], tools=tools) == plain


def test_images_count_as_many_tokens_as_the_model_says_at_most(tokeniser: Tokeniser) -> None:
    text = {"type": "text", "text": "what"}
    without = counted(tokeniser, messages=[USER | {"content": [text]}])
    found = counted(tokeniser, messages=[USER | {"content": [text, IMAGE, IMAGE]}])
    assert (found.tokens, found.least) == (without.tokens + 2 * 2048, without.tokens)
    assert (without.exact, found.exact) == (True, False)


def test_what_cannot_be_read_is_the_estimate(tokeniser: Tokeniser) -> None:
    assert counted(tokeniser, messages=[{"content": 5}]) == Prompt(77, 0, exact=False)


def chinese(size: int) -> str:
    dice = random.Random(1)
    return "".join(chr(dice.randint(0x4E00, 0x9FA5)) for _ in range(size))


@pytest.mark.parametrize("blanks", [0, 2 * MOST_COUNTED])
def test_a_text_too_long_to_count_is_extrapolated_from_itself(
    tokeniser: Tokeniser, blanks: int
) -> None:
    text = "a b " * (blanks // 4) + chinese(MOST_COUNTED + 1000)
    found = counted(tokeniser, messages=[USER | {"content": text}])
    true = tokens_of(tokeniser, text)
    assert abs(found.tokens - true) < true // 20
    assert not found.exact
    assert counted(tokeniser, messages=[USER | {"content": text}]) == found


@pytest.mark.parametrize("kind", ["a", " ", "\u4e2d", "!", "\U0001f600", "aB1"])
def test_one_endless_word_takes_a_bounded_time(tokeniser: Tokeniser, kind: str) -> None:
    for size in (MOST_COUNTED, 8 * MOST_COUNTED):
        text = kind * (size // len(kind))
        began = time.process_time()
        assert counted(tokeniser, messages=[USER | {"content": text}]).tokens > 1000
        assert time.process_time() - began < 5


def test_one_endless_word_of_another_script_is_counted_not_taken_for_its_length(
    tokeniser: Tokeniser,
) -> None:
    text = chinese(60_000)
    found = counted(tokeniser, messages=[USER | {"content": text}])
    true = tokens_of(tokeniser, text)
    assert abs(found.tokens - true) < true // 50
