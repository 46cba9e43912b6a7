import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.crowd import (
    MOST_FIELDS,
    MOST_ITEMS,
    MOST_NUMBERS,
    MOST_OBJECTS,
    too_much,
)

COMMAS = {"user": "," * MOST_ITEMS}  # text that makes a body worth counting
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\,:[]{}\n é', max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=40,
)


def named(body: Any) -> str | None:
    """The field that the body is refused for."""
    deny = too_much(body if isinstance(body, bytes) else json.dumps(body).encode())
    return None if deny is None else deny.param


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=20), st.sampled_from([None, 1]))
def test_marks_inside_of_strings_are_text(fields: dict[str, Any], indent: int | None) -> None:
    assert too_much(json.dumps(CHAT | COMMAS | fields, indent=indent).encode()) is None


@pytest.mark.parametrize("field", ["messages", "prompt", "input", "metadata"])
def test_a_field_holds_as_many_items_as_allowed_and_not_one_more(field: str) -> None:
    for item in ("a", {"role": "user", "content": "a, b"}, ["a"], [1, 2], None):
        assert named(COMMAS | {field: [item] * MOST_ITEMS}) is None
        assert named(COMMAS | {field: [item] * (MOST_ITEMS + 1), "z": 1}) == field
    assert named({field: {f"k{n}": 1 for n in range(MOST_ITEMS + 1)}}) == field


def test_a_request_has_as_many_fields_as_allowed_and_not_one_more() -> None:
    most = {f"k{n}": {"a": [1, "b"]} for n in range(MOST_FIELDS - 1)}
    assert named(COMMAS | most) is None
    assert named(COMMAS | most | {"last": 1}) == "last"


def test_token_ids_are_many_and_bounded_all_the_same() -> None:
    assert named({"prompt": [50_000] * 200_000}) is None
    assert named({"prompt": [[7] * 1_000] * 1_000}) is None
    assert named({"prompt": [7] * (MOST_NUMBERS + 1)}) == "prompt"
    assert named({"input": [[7] * 1_000] * 1_001}) == "input"


def test_parts_of_one_message_are_bounded_too() -> None:
    def message(parts: int) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": [{}] * parts}]}

    assert named(message(MOST_OBJECTS - 2)) is None
    assert named(message(MOST_OBJECTS)) == "messages"


def test_a_name_that_is_shown_is_short() -> None:
    assert named(COMMAS | {"n" * 5_000: [None] * (MOST_ITEMS + 1)}) == "n" * 64


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[' + b"{}," * 8_000_000 + b"{}]}",
        b'{"messages":[{"content":[' + b"{}," * 8_000_000 + b"{}]}]}",
        b'{"prompt":[' + b"1," * 11_000_000 + b"1]}",
        b'{"prompt":["a",' + b"1," * 11_000_000 + b"1]}",
        b'{"input":[' + b'"",' * 8_000_000 + b'""]}',
        b"{" + b'"a":1,' * 4_000_000 + b'"b":1}',
        b'{"stream_options":{' + b'"a":1,' * 4_000_000 + b'"b":1}}',
        b'{"x":' + b"[" * 20_000 + b"1," * 11_000_000 + b"]" * 20_000 + b"}",
        b'{"x":[' + b"[" * 500 + b"[[1],[1]]," * 2_000_000 + b"]" * 500 + b"]}",
    ],
    ids=range(9),
)
def test_what_is_far_too_much_is_refused_at_once(body: bytes) -> None:
    began = time.process_time()

    assert too_much(body) is not None

    assert time.process_time() - began < 1.5  # going through all of it takes several times that


@pytest.mark.parametrize("filling", [b"\\n", b'\\",', b"hello, ", b"\xc3\xa9,", b"\\\\,"])
def test_a_long_text_is_passed_in_one_step(filling: bytes) -> None:
    text = filling * (20_000_000 // len(filling))
    began = time.process_time()

    assert named(b'{"messages":[{"content":"' + text + b'"}],"a":[1,2]}') is None

    assert time.process_time() - began < 1.5
