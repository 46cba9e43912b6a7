"""What the gateway reads of a request. The rest stays bytes and passes through unchanged."""

from typing import Final

import msgspec

from policies.decision import Deny, DenyCode

CHAT: Final = "chat"
COMPLETIONS: Final = "completions"
EMBEDDINGS: Final = "embeddings"

MAX_CHOICES: Final = 128
MAX_TOKENS: Final = 10_000_000  # no context window is near it; keeps every product below 2^53
_OUTPUT_FIELDS: Final = ("max_completion_tokens", "max_tokens")


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    type: str | None = None


class Envelope(msgspec.Struct, frozen=True):
    """The union of what we need from the three OpenAI operations; unknown fields are not looked
    at.
    """

    model: str
    messages: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    functions: msgspec.Raw = msgspec.Raw(b"")
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


_DECODER: Final = msgspec.json.Decoder(Envelope)
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NULLS: Final = (b"", b"null", b"[]")


def decode(body: bytes, operation: str) -> Envelope | Deny:
    """The envelope of a body, or a Deny that names the field at fault."""
    try:
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


def capabilities(envelope: Envelope, operation: str, *, media: bool) -> frozenset[str]:
    """What a backend must be able to do to answer this request; `media` is `has_media`'s word."""
    needs = {operation}
    if not _absent(envelope.tools) or not _absent(envelope.functions):
        needs.add("tools")
    if envelope.response_format is not None and envelope.response_format.type == "json_schema":
        needs.add("json_schema")
    if operation == CHAT and media:
        parts = media_parts(envelope)
        if parts.images:
            needs.add("vision")
        if parts.audio:
            needs.add("audio")
    return frozenset(needs) if len(needs) > 1 else _ALONE[operation]


_ALONE: Final = {name: frozenset((name,)) for name in (CHAT, COMPLETIONS, EMBEDDINGS)}


def _absent(raw: msgspec.Raw) -> bool:
    return len(memoryview(raw)) <= 4 and bytes(raw) in _NULLS


def has_media(body: bytes) -> bool:
    """Whether the messages may hold parts other than text: cheap, and never a false no. Quotes
    inside a JSON string are escaped, so these words can only be whole strings of the document; an
    escaped letter inside such a word is why a backslash and u send us to look properly.
    """
    if b'"image_url"' in body or b'"input_audio"' in body or b'"file"' in body:
        return True
    return b"\\u00" in body


class MediaParts(msgspec.Struct, frozen=True):
    """What the messages hold besides text."""

    text_bytes: int  # JSON bytes of everything that is not inline media
    images: int
    audio: int
    unsized: bool  # a file, or an image elsewhere: its size cannot be known here


class _Url(msgspec.Struct, frozen=True):
    url: str = ""


class _Part(msgspec.Struct, frozen=True):
    type: str = "text"
    image_url: _Url | str | None = None
    input_audio: msgspec.Raw = msgspec.Raw(b"")


class _Message(msgspec.Struct, frozen=True):
    content: list[_Part] | str | None = None


_MESSAGES: Final = msgspec.json.Decoder(list[_Message])


def media_parts(envelope: Envelope) -> MediaParts:
    """Counts media in chat messages. Content that cannot be read counts as unsized, never as
    nothing.
    """
    size = len(memoryview(envelope.messages))
    try:
        messages = _MESSAGES.decode(envelope.messages)
    except (msgspec.DecodeError, RecursionError):
        return MediaParts(size, 0, 0, unsized=True)
    parts = [part for m in messages if isinstance(m.content, list) for part in m.content]
    images = [part.image_url for part in parts if part.image_url is not None]
    urls = [image if isinstance(image, str) else image.url for image in images]
    inline = sum(len(url) for url in urls if url.startswith("data:"))
    audio = [part for part in parts if part.type == "input_audio"]
    inline += sum(len(memoryview(part.input_audio)) for part in audio)
    unsized = bool(audio) or any(not url.startswith("data:") for url in urls)
    unsized = unsized or any(part.type not in _SIZED for part in parts)
    return MediaParts(size - inline, len(images), len(audio), unsized)


_SIZED: Final = frozenset(("text", "image_url", "refusal"))


def rewrite(
    body: bytes,
    *,
    model: str,
    output_tokens: int | None,
    output_field: str,
    include_usage: bool,
) -> bytes:
    """The body as the backend gets it: model name, output clamp and `stream_options` replaced,
    every other value byte for byte. A field given twice is sent once, so that the backend cannot
    read a value that we did not (the clamp could be smuggled past us otherwise).

    `output_tokens` None leaves the output fields alone (embeddings); `output_field` is used where
    the client named none.
    """
    fields = _FIELDS.decode(body)
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    if output_tokens is not None:
        clamp = msgspec.Raw(b"%d" % output_tokens)
        named = [name for name in _OUTPUT_FIELDS if not _absent(fields.get(name, _NO_RAW))]
        for name in _OUTPUT_FIELDS:
            fields.pop(name, None)
        for name in named or [output_field]:
            fields[name] = clamp
    if include_usage:
        options = fields.get("stream_options", _NO_RAW)
        merged = {} if _absent(options) else _FIELDS.decode(options)
        merged["include_usage"] = msgspec.Raw(b"true")
        fields["stream_options"] = msgspec.Raw(msgspec.json.encode(merged))
    return msgspec.json.encode(fields)


_NO_RAW: Final = msgspec.Raw(b"")
