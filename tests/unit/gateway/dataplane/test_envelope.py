"""The field that an operation cannot do without: something is in it, and of a kind that can be."""

import pytest

from gateway.dataplane.envelope import CHAT, COMPLETIONS, EMBEDDINGS
from gateway.dataplane.reading import Reading, read
from policies.decision import Deny, DenyCode

FIELD = {CHAT: "messages", COMPLETIONS: "prompt", EMBEDDINGS: "input"}


def _read(operation: str, value: str) -> Reading | Deny:
    return read(f'{{"model":"chat","{FIELD[operation]}":{value}}}'.encode(), operation)


@pytest.mark.parametrize("operation", [CHAT, COMPLETIONS, EMBEDDINGS])
@pytest.mark.parametrize("value", ["[]", "[ ]", "[\n\t ]", "[] ", "[ ] ", "null", "null ", " null"])
def test_nothing_is_refused_however_it_is_spelled(operation: str, value: str) -> None:
    found = _read(operation, value)

    assert isinstance(found, Deny)
    assert (found.code, found.param) == (DenyCode.INVALID_REQUEST, FIELD[operation])
    assert "not empty" in found.message


@pytest.mark.parametrize("operation", [CHAT, COMPLETIONS, EMBEDDINGS])
@pytest.mark.parametrize("value", ["7", "-1.5", "true", '{"a": "b"}', "nullx"])
def test_what_can_be_no_prompt_is_refused_by_name(operation: str, value: str) -> None:
    found = _read(operation, value)

    assert isinstance(found, Deny)
    assert found.code is DenyCode.INVALID_REQUEST
    assert found.param == (FIELD[operation] if value != "nullx" else None)


@pytest.mark.parametrize(
    ("operation", "value"),
    [
        (CHAT, '[{"role":"user","content":"hello"}]'),
        (CHAT, '[ {"role":"user","content":"hello"} ] '),
        (COMPLETIONS, '"hello"'),
        (COMPLETIONS, '[ "hello" ] '),
        (COMPLETIONS, "[1, 2]"),
        (COMPLETIONS, "[[1], [2]]"),
        (EMBEDDINGS, '"hello"'),
        (EMBEDDINGS, '["a", "b"]'),
    ],
)
def test_what_says_something_is_read(operation: str, value: str) -> None:
    assert isinstance(_read(operation, value), Reading)
