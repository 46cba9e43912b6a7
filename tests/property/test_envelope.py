"""Fields that are read one by one say what they would say as one document, faults included."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.envelope import CHAT, Envelope, Fields, envelope_of, fields_of, read_together
from policies.decision import Deny

COUNTS = st.one_of(
    *(st.none(), st.integers(-2, 140), st.just(10_000_001), st.booleans(), st.just(2.0)),
    st.text(max_size=3),
)
ODD = st.sampled_from((None, "", [], {}, 0, True, "json_schema", {"type": "json_schema"}))
SHORT = st.fixed_dictionaries(
    {},
    optional={
        "model": st.one_of(st.text(max_size=5), COUNTS),
        "stream": st.one_of(st.booleans(), ODD),
        "stream_options": st.one_of(ODD, st.fixed_dictionaries({"include_usage": ODD})),
        "max_tokens": COUNTS,
        "max_completion_tokens": COUNTS,
        "n": COUNTS,
        "best_of": COUNTS,
        "response_format": ODD,
    },
)


@given(SHORT)
def test_one_by_one_or_together_is_the_same(short: dict[str, Any]) -> None:
    sent = fields_of(json.dumps(short | {"messages": [{"role": "user", "content": "x"}]}).encode())
    assert isinstance(sent, dict)
    together = read_together({name: raw for name, raw in sent.items() if name != "messages"})

    assert envelope_of(sent, CHAT) == together


def test_what_is_no_json_is_found_in_any_field() -> None:
    for name in Envelope.__struct_fields__:
        fields: Fields = {name: msgspec.Raw(b"nul"), "messages": msgspec.Raw(b"[{}]")}
        assert isinstance(envelope_of({"model": msgspec.Raw(b'"m"')} | fields, CHAT), Deny)
