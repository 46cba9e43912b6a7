"""What the gateway reads of a request. The rest stays bytes and passes through unchanged."""

import re
from typing import Annotated, Final

import msgspec

from gateway.dataplane.media import MediaParts
from policies.decision import Deny, DenyCode

Fields = dict[str, msgspec.Raw]  # of a body, each value as it was sent

CHAT: Final = "chat"
COMPLETIONS: Final = "completions"
EMBEDDINGS: Final = "embeddings"

MAX_CHOICES: Final = 128
MAX_TOKENS: Final = 10_000_000  # no context window is near it; keeps every product below 2^53


_NOT_GIVEN: Final = msgspec.Raw(b"")


_Tokens = Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)]
_Choices = Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)]
_MOST: Final = {
    "n": MAX_CHOICES,
    "best_of": MAX_CHOICES,
    "max_tokens": MAX_TOKENS,
    "max_completion_tokens": MAX_TOKENS,
}


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    type: str | None = None


class Envelope(msgspec.Struct, frozen=True):
    """What we act on of the three OpenAI operations, but for prompts and tools: those are long, and
    stay among the fields.
    """

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    n: _Choices | None = None
    best_of: _Choices | None = None
    response_format: ResponseFormat | None = None

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def max_output(self) -> int | None:
        """The tightest of the two fields a client may use; None when it set neither."""
        if self.max_completion_tokens is None:
            return self.max_tokens
        if self.max_tokens is None:
            return self.max_completion_tokens
        return min(self.max_tokens, self.max_completion_tokens)


_FIELDS: Final = msgspec.json.Decoder(Fields)
_ENVELOPE: Final = msgspec.json.Decoder(Envelope)
_NAMES: Final = frozenset(Envelope.__struct_fields__)
_NULLS: Final = (b"", b"null", b"[]")
_NOTHING: Final = re.compile(rb"(?:null|\[\s*+\])?\s*+")  # however much room is left in it
_encode: Final = msgspec.json.Encoder().encode


def fields_of(body: bytes) -> Fields | Deny:
    """The fields of a body that is one JSON object. One that is given twice is kept once, so that
    the backend cannot read a value that we did not.
    """
    try:
        body.isascii() or body.decode()  # a backend must not be the first to find bad UTF-8
        return _FIELDS.decode(body)
    except msgspec.ValidationError as fault:
        return _invalid(fault)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        return Deny(
            DenyCode.INVALID_REQUEST, f"the body is not valid JSON ({fault}); send one JSON object"
        )


def envelope_of(fields: Fields, operation: str) -> Envelope | Deny:
    """The envelope, or a Deny that names the field at fault."""
    try:
        short = {name: raw for name, raw in fields.items() if name in _NAMES}
        envelope = _ENVELOPE.decode(_encode(short))  # the long fields are not gone through again
    except msgspec.ValidationError as fault:
        return _invalid(fault)
    except (msgspec.DecodeError, RecursionError) as fault:
        return Deny(DenyCode.INVALID_REQUEST, f"the body is not valid JSON ({fault})")
    return _out_of_bounds(envelope, fields, operation) or envelope


def given(fields: Fields, name: str) -> msgspec.Raw:
    """One field as it was sent; empty where it was not."""
    return fields.get(name, _NOT_GIVEN)


def _invalid(fault: msgspec.ValidationError) -> Deny:
    """Msgspec says `Expected int, got str - at $.max_tokens`; the path becomes `param`."""
    text, _, path = str(fault).partition(" - at `$.")
    field = path.rstrip("`") or None
    if field is None and "missing required field" in text:
        field = text.rpartition("`")[0].rpartition("`")[2]
    if text.startswith("Expected `int` ") and field in _MOST:
        text = f"must be 1 to {_MOST[field]}"
    return Deny(DenyCode.INVALID_REQUEST, f"{field or 'body'}: {text}", param=field)


def _out_of_bounds(envelope: Envelope, fields: Fields, operation: str) -> Deny | None:
    required = given(fields, _REQUIRED[operation])
    if bytes(memoryview(required)[:2]) != b"[{":  # as nearly every chat begins
        deny = _unfit(_REQUIRED[operation], memoryview(required), operation)
        if deny is not None:
            return deny
    if envelope.stream and operation == EMBEDDINGS:
        return Deny(DenyCode.INVALID_REQUEST, "stream: embeddings do not stream", param="stream")
    return None


def _unfit(name: str, raw: memoryview, operation: str) -> Deny | None:
    """The field that an operation cannot do without, where it is empty or of no use."""
    if _NOTHING.fullmatch(raw):
        return Deny(DenyCode.INVALID_REQUEST, f"{name}: required and not empty", param=name)
    if bytes(raw[:1]) not in _STARTS[operation]:
        expected = "an array" if operation == CHAT else "a string or an array"
        return Deny(DenyCode.INVALID_REQUEST, f"{name}: expected {expected}", param=name)
    return None


_REQUIRED: Final = {CHAT: "messages", COMPLETIONS: "prompt", EMBEDDINGS: "input"}
_STARTS: Final = {CHAT: (b"[",), COMPLETIONS: (b'"', b"["), EMBEDDINGS: (b'"', b"[")}


def capabilities(
    envelope: Envelope, fields: Fields, operation: str, parts: MediaParts | None
) -> frozenset[str]:
    """What a backend must be able to do to answer this request."""
    needs = set()
    for name in _TOOLS:
        if name in fields and not absent(fields[name]):
            needs.add("tools")
    if envelope.response_format is not None and envelope.response_format.type == "json_schema":
        needs.add("json_schema")
    if parts is not None and parts.images:
        needs.add("vision")
    if parts is not None and parts.audio:
        needs.add("audio")
    return _ALONE[operation] | needs if needs else _ALONE[operation]


_TOOLS: Final = ("tools", "functions")
_ALONE: Final = {name: frozenset((name,)) for name in (CHAT, COMPLETIONS, EMBEDDINGS)}


def absent(raw: msgspec.Raw) -> bool:
    """Whether an optional field was not given, or given as nothing."""
    return raw is _NOT_GIVEN or (len(memoryview(raw)) <= 4 and bytes(raw) in _NULLS)
