"""A chat that is read in one decode is what it would have been the long way."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.dataplane.envelope import CHAT, envelope_of, fields_of
from gateway.dataplane.envelope import given as field
from gateway.dataplane.media import text_messages
from gateway.dataplane.plain_chat import plain_chat
from policies.decision import Deny

ODD = st.sampled_from((None, "", [], {}, 0, 1, True, 1.0, 1.5, -1, 10**8, "x", ["x"], {"a": 1}))
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": ODD,
            "content": st.one_of(st.text(max_size=5), ODD, st.just([{"type": "text"}])),
            "audio": ODD,
        },
    ),
    max_size=3,
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "model": st.one_of(st.text(max_size=5), ODD),
        "messages": st.one_of(MESSAGES, ODD),
        "stream": st.one_of(st.booleans(), ODD),
        "stream_options": st.one_of(ODD, st.just({"include_usage": True})),
        "response_format": st.one_of(ODD, st.just({"type": "json_schema"})),
        **dict.fromkeys(("max_tokens", "max_completion_tokens", "n", "best_of"), ODD),
        "tools": ODD,
    },
)
TWICE = b'{"model":"a","n":0,"messages":[{"content":[]}],"n":2,"messages":[{}],"\\u006dodel":"b"}'


def agrees(body: bytes) -> bool:
    """Whether it was taken; what is taken is as the long way has it."""
    plain = plain_chat(body)
    if plain is None:
        return False
    fields = fields_of(body)
    assert not isinstance(fields, Deny)
    assert plain == (envelope_of(fields, CHAT), text_messages(field(fields, "messages")))
    return True


@given(BODIES, st.booleans())
def test_what_is_taken_in_one_decode_is_what_the_long_way_finds(
    body: dict[str, Any], spaced: bool
) -> None:
    agrees(json.dumps(body, indent=1 if spaced else None).encode())


@given(BODIES, st.integers(0, 300), st.sampled_from((b"", b'"', b"{", b"]", b",", b"0", b"\\u")))
@example({"model": "m", "messages": [{"content": "x"}]}, 0, b"")
def test_a_damaged_body_is_not_taken_for_another(body: dict[str, Any], at: int, put: bytes) -> None:
    whole = json.dumps(body).encode()
    agrees(whole[: at % len(whole)] + put + whole[at % len(whole) + 1 :])


def test_what_is_given_twice_counts_as_it_does_the_long_way() -> None:
    assert not agrees(TWICE)
    assert agrees(TWICE.replace(b'"n":0,', b"").replace(b'[{"content":[]}]', b"[{}]"))


def test_an_ordinary_chat_is_taken_and_one_without_messages_is_not() -> None:
    assert agrees(b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5}')
    assert not agrees(b'{"model":"m","messages":[]}')
    assert not agrees(b'{"model":"m","messages":[{"content":[{"type":"image_url"}]}]}')
