"""The prompt by our own count: every text that a backend reads into it, and its images.

Runs only where a backend's figure is missing or cannot be true. What a chat template writes around
the texts is counted by the cookbook's rule; ids, roles and media are not text.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from gateway.dataplane.count import MOST_COUNTED, Tokeniser
from gateway.dataplane.envelope import CHAT, COMPLETIONS, EMBEDDINGS, Fields, absent, given
from gateway.dataplane.reading import LARGE_BYTES
from gateway.stores.sql.rows import Model


class Prompt(msgspec.Struct, frozen=True):
    """Tokens of a prompt. `least` are those of texts that every backend reads; the rest is images
    at their most, and what some backends keep out of the prompt.
    """

    tokens: int
    least: int
    exact: bool  # False: extrapolated, or with media whose size is an assumption


class _Texts(msgspec.Struct):
    """What a request carries: tokens that are no text, and text."""

    framing: int = 0
    read: list[str] = []
    perhaps: list[str] = []  # read by some backends, and by others not
    images: int = 0
    sized: bool = True


async def count_prompt(
    tokeniser: Tokeniser, model: Model, fields: Fields, operation: str, fallback: int
) -> Prompt:
    """Never raises for any request; `fallback` tokens where its texts cannot be read."""
    try:
        if sum(len(memoryview(given(fields, name))) for name in _READ[operation]) > LARGE_BYTES:
            found = await tokeniser.aside(_texts, fields, operation)
        else:
            found = _texts(fields, operation)
    except (msgspec.MsgspecError, RecursionError):
        return Prompt(fallback, 0, exact=False)
    least = found.framing + await tokeniser.count(model.encoding, found.read)
    perhaps = await tokeniser.count(model.encoding, found.perhaps)
    size = max(sum(map(len, found.read)), sum(map(len, found.perhaps)))
    return Prompt(
        least + perhaps + found.images * model.image_tokens,
        least,
        exact=found.sized and size <= MOST_COUNTED,
    )


class _Function(msgspec.Struct, frozen=True):
    name: Any = None
    arguments: Any = None
    input: Any = None


class _Call(msgspec.Struct, frozen=True):
    function: _Function | None = None
    custom: _Function | None = None


class _Part(msgspec.Struct, frozen=True):
    type: Any = None
    text: Any = None
    refusal: Any = None
    thinking: Any = None
    image_url: msgspec.Raw = msgspec.Raw(b"")  # never decoded: it is no text, and large


class _Message(msgspec.Struct, frozen=True):
    content: list[_Part | str] | str | None = None
    name: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None


class _Format(msgspec.Struct, frozen=True):
    json_schema: Any = None


_MESSAGES: Final = msgspec.json.Decoder(list[_Message])
_OF_TEXT: Final = ("text", "refusal", "thinking", None)
_PER_MESSAGE: Final = 4  # the cookbook's rule for chat templates: three, and the role
_REPLY_PRIMING: Final = 3
_TOKEN_ID_BYTES: Final = b"0123456789,[] \t\r\n"

# Other fields of a chat that are written into the prompt, as JSON: by all backends, by some.
_TOOLS: Final = ("tools", "functions")
_PERHAPS: Final = ("documents", "chat_template_kwargs", "response_format")
_READ: Final = {
    CHAT: ("messages", *_TOOLS, *_PERHAPS),
    COMPLETIONS: ("prompt", "suffix"),
    EMBEDDINGS: ("input",),
}


def _texts(fields: Fields, operation: str) -> _Texts:
    """DecodeError where they cannot be read."""
    if operation == CHAT:
        return _chat(fields)
    raw = bytes(given(fields, _READ[operation][0]))
    if not raw.translate(None, _TOKEN_ID_BYTES):
        found = _Texts(raw.count(b",") + 1, [])
    else:
        sent = msgspec.json.decode(raw, type=str | list[str | int | list[int]])
        items = [sent] if isinstance(sent, str) else sent
        texts = [item for item in items if isinstance(item, str)]
        ids = sum(len(item) if isinstance(item, list) else 1 for item in items) - len(texts)
        found = _Texts(ids, texts)
    if operation == COMPLETIONS:
        found.read.append(_as_json(fields, "suffix"))
    return found


def _chat(fields: Fields) -> _Texts:
    found = _Texts(_REPLY_PRIMING, [_as_json(fields, name) for name in _TOOLS])
    found.perhaps = [_as_json(fields, name) for name in _PERHAPS]
    for message in _MESSAGES.decode(given(fields, "messages")):
        found.framing += _PER_MESSAGE
        found.read += _said(message)
        if isinstance(message.content, list):
            _add_parts(found, message.content)
        elif message.content is not None:
            found.read.append(message.content)
    return found


def _add_parts(found: _Texts, parts: list[_Part | str]) -> None:
    for part in parts:
        if isinstance(part, str):
            found.read.append(part)
            continue
        found.read += filter(None, map(_as_text, (part.text, part.refusal, part.thinking)))
        found.images += not absent(part.image_url)
        found.sized = found.sized and part.type in _OF_TEXT


def _said(message: _Message) -> Iterator[str]:
    """Everything but its content."""
    thoughts = message.reasoning_content or message.reasoning
    yield from filter(None, map(_as_text, (message.name, message.refusal, thoughts)))
    for call in message.tool_calls or ():
        for function in (call.function, call.custom):
            yield from _called(function)
    yield from _called(message.function_call)


def _called(function: _Function | None) -> Iterator[str]:
    if function is not None:
        said = (function.name, function.arguments, function.input)
        yield from filter(None, map(_as_text, said))


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def _as_json(fields: Fields, name: str) -> str:
    """A field as a template writes it: no blanks and no escapes of the caller's making."""
    raw = given(fields, name)
    if absent(raw):
        return ""
    if name == "response_format":  # its type alone is no text of the prompt
        return _as_text(msgspec.json.decode(raw, type=_Format).json_schema)
    return _as_text(msgspec.json.decode(raw))
