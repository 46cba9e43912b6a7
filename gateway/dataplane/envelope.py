"""What the gateway reads of a request. The rest stays bytes and passes through unchanged."""

from typing import Final

import msgspec

from gateway.dataplane.media import MediaParts
from policies.decision import Deny, DenyCode

CHAT: Final = "chat"
COMPLETIONS: Final = "completions"
EMBEDDINGS: Final = "embeddings"

MAX_CHOICES: Final = 128
MAX_TOKENS: Final = 10_000_000  # no context window is near it; keeps every product below 2^53
_OUTPUT_FIELDS: Final = ("max_completion_tokens", "max_tokens")


_NOT_GIVEN: Final = msgspec.Raw(b"")


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    type: str | None = None


class Envelope(msgspec.Struct, frozen=True):
    """The union of what we need from the three OpenAI operations; unknown fields are not looked
    at.
    """

    model: str
    messages: msgspec.Raw = _NOT_GIVEN
    prompt: msgspec.Raw = _NOT_GIVEN
    input: msgspec.Raw = _NOT_GIVEN
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    tools: msgspec.Raw = _NOT_GIVEN
    functions: msgspec.Raw = _NOT_GIVEN
    response_format: ResponseFormat | None = None
    web_search_options: msgspec.Raw = _NOT_GIVEN

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


_DECODER: Final = msgspec.json.Decoder(Envelope)
_NULLS: Final = (b"", b"null", b"[]")


def decode(body: bytes, operation: str) -> Envelope | Deny:
    """The envelope of a body, or a Deny that names the field at fault."""
    try:
        body.isascii() or body.decode()  # a backend must not be the first to find bad UTF-8
        envelope = _DECODER.decode(body)
    except msgspec.ValidationError as fault:
        return _invalid(fault)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        return Deny(
            DenyCode.INVALID_REQUEST, f"the body is not valid JSON ({fault}); send one JSON object"
        )
    return _out_of_bounds(envelope, operation) or envelope


def _invalid(fault: msgspec.ValidationError) -> Deny:
    """Msgspec says `Expected int, got str - at $.max_tokens`; the path becomes `param`."""
    text, _, path = str(fault).partition(" - at `$.")
    field = path.rstrip("`") or None
    if field is None and "missing required field" in text:
        field = text.rpartition("`")[0].rpartition("`")[2]
    return Deny(DenyCode.INVALID_REQUEST, f"{field or 'body'}: {text}", param=field)


def _out_of_bounds(envelope: Envelope, operation: str) -> Deny | None:
    required = {CHAT: "messages", COMPLETIONS: "prompt", EMBEDDINGS: "input"}[operation]
    content: msgspec.Raw = getattr(envelope, required)
    if bytes(memoryview(content)[:4]) in _NULLS:
        return Deny(DenyCode.INVALID_REQUEST, f"{required}: required and not empty", param=required)
    if operation == CHAT and bytes(memoryview(content)[:1]) != b"[":
        return Deny(DenyCode.INVALID_REQUEST, "messages: expected an array", param="messages")
    for name in ("n", "best_of"):
        value = getattr(envelope, name)
        if value is not None and not 1 <= value <= MAX_CHOICES:
            return Deny(DenyCode.INVALID_REQUEST, f"{name}: must be 1 to {MAX_CHOICES}", param=name)
    for name in _OUTPUT_FIELDS:
        value = getattr(envelope, name)
        if value is not None and not 1 <= value <= MAX_TOKENS:
            return Deny(DenyCode.INVALID_REQUEST, f"{name}: must be 1 to {MAX_TOKENS}", param=name)
    if operation == EMBEDDINGS and envelope.stream:
        return Deny(DenyCode.INVALID_REQUEST, "stream: embeddings do not stream", param="stream")
    return None


def capabilities(envelope: Envelope, operation: str, parts: MediaParts | None) -> frozenset[str]:
    """What a backend must be able to do to answer this request."""
    needs = {operation}
    if not absent(envelope.tools) or not absent(envelope.functions):
        needs.add("tools")
    if envelope.response_format is not None and envelope.response_format.type == "json_schema":
        needs.add("json_schema")
    if parts is not None and parts.images:
        needs.add("vision")
    if parts is not None and parts.audio:
        needs.add("audio")
    return frozenset(needs) if len(needs) > 1 else _ALONE[operation]


_ALONE: Final = {name: frozenset((name,)) for name in (CHAT, COMPLETIONS, EMBEDDINGS)}


def absent(raw: msgspec.Raw) -> bool:
    """Whether an optional field was not given, or given as nothing."""
    return raw is _NOT_GIVEN or (len(memoryview(raw)) <= 4 and bytes(raw) in _NULLS)
