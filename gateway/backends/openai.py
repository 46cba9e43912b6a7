"""OpenAI's way: chat completions, completions and embeddings, plain and streamed."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.backends.dialect import AnswerRead, Reported, Seen
from gateway.backends.openai_alike import Alike
from gateway.backends.openai_plain import MOST_TOKENS, disjoint, named_tier, read_plain
from gateway.backends.openai_whole import OpenAIEnding, OpenAIWhole
from gateway.backends.sse import kind, payload
from gateway.backends.texts import LARGE_BYTES, MOST_NEW, Texts

_PATHS: Final = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
}

# The Structs name only what is metered, and leave types open wherever servers are known to differ:
# a surprise in one field must not hide the others.


class _Said(msgspec.Struct, frozen=True):
    """A message, or a delta of one. Two names for reasoning are in use."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Said | None = None
    message: _Said | None = None
    text: Any = None
    finish_reason: Any = None


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    object: Any = None
    service_tier: Any = None


class _Answer(_Chunk, frozen=True):
    data: msgspec.Raw = msgspec.Raw(b"")  # embeddings; a Raw cannot be optional


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_ANSWER: Final = msgspec.json.Decoder(_Answer)
_UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)

_NOTHING: Final = Seen()
_DONE: Final = Seen(done=True)
_UNREADABLE: Final = Seen(unreadable=True)
_END: Final = b"data: [DONE]\n\n"
_SIZES: Final = tuple(Seen(size) for size in range(64))  # nearly every event is one of these


class OpenAI:
    """The dialect `openai`, also of the many servers that speak it."""

    name = "openai"

    def path(self, operation: str) -> str:
        return _PATHS[operation]

    def headers(self, credential: str | None) -> list[tuple[bytes, bytes]]:
        headers = [(b"content-type", b"application/json")]
        if credential:
            if not (credential.isascii() and credential.isprintable()):
                raise ValueError("a credential must be printable ASCII")
            headers.append((b"authorization", b"Bearer " + credential.encode()))
        return headers

    def usage_of_answer(self, body: bytes) -> Reported | None:
        return self.read_answer(body).reported

    def read_answer(self, body: bytes) -> AnswerRead:
        return read_plain(body) or read_any(body)

    def meter(self) -> "OpenAIMeter":
        return OpenAIMeter()

    def listening(self, heard: list[str]) -> "OpenAIMeter":
        return _ListeningMeter(heard)

    def whole(self, operation: str) -> OpenAIWhole:
        return OpenAIWhole(operation)

    def ending(self, operation: str) -> OpenAIEnding:
        return OpenAIEnding(operation)


def read_any(body: bytes) -> AnswerRead:
    """Of an answer whatever can be made out."""
    try:
        answer = _ANSWER.decode(body)
    except _UNDECODABLE:
        return AnswerRead(None, (), "", readable=False)
    texts: list[str] = []
    reasons = []
    for choice in answer.choices or ():
        texts += _texts(choice)
        if isinstance(choice.finish_reason, str):
            reasons.append(choice.finish_reason)
    known = answer.choices is not None or bool(memoryview(answer.data))
    return AnswerRead(
        _reported(answer.usage),
        tuple(reasons),
        "".join(texts),
        known and not answer.error,
        _tier(answer),
    )


class OpenAIMeter:
    """Sums over one stream."""

    __slots__ = (
        "_alike",
        "_texts",
        "chunks",
        "done",
        "error_code",
        "finish_reasons",
        "reported",
        "service_tier",
    )

    def __init__(self) -> None:
        self.reported: Reported | None = None
        self.chunks = 0
        self.finish_reasons: tuple[str, ...] = ()
        self.done = False
        self.error_code: str | None = None
        self.service_tier: str | None = None
        self._texts = Texts()
        self._alike = Alike()

    @property
    def text_bytes(self) -> int:
        return self._texts.bytes_in_all()

    def feed(self, event: bytes) -> Seen:
        if event == _END:
            self.done = True
            return _DONE
        # One data field on one line is the rule. Whatever else there is makes the slice invalid
        # JSON, so that trying is the cheapest test; a stray CR at its end is white space.
        if not event.startswith(b"data: "):
            return self._feed_any(event)
        try:
            chunk = _CHUNK.decode(event[6:-2])
        except _UNDECODABLE:
            return self._feed_any(event)
        choices = chunk.choices
        if chunk.service_tier is not None and self.service_tier is None:
            self.service_tier = _tier(chunk)
        if choices is None or chunk.usage is not None or len(choices) != 1:
            return self._feed_chunk(chunk)
        choice = choices[0]
        if chunk.error is not None or choice.finish_reason is not None:
            return self._feed_chunk(chunk)
        texts = _texts(choice)
        return self._keep(texts) if texts else _NOTHING

    def feed_texts(self, events: Sequence[bytes], begin: int) -> int:
        if self.finish_reasons:
            return begin  # hardly any text comes after one
        new = self._texts.new
        before = len(new)
        end = self._alike.read(events, begin, new)
        if self._alike.tier is not None and self.service_tier is None:
            self.service_tier = named_tier(self._alike.tier)
        self.chunks += len(new) - before
        if end - begin != 1 or len(new) >= MOST_NEW or len(events[begin]) > LARGE_BYTES:
            self._texts.fold()
        return end

    def generated_text(self) -> str:
        return self._texts.kept()

    def _feed_any(self, event: bytes) -> Seen:
        data = payload(event)
        if not data:
            return _NOTHING  # a comment, a keep-alive
        if data.strip() == b"[DONE]":
            self.done = True
            return _DONE
        try:
            chunk = _CHUNK.decode(data)
        except _UNDECODABLE:
            return _UNREADABLE
        return self._failed(chunk.error) if kind(event) == b"error" else self._feed_chunk(chunk)

    def _feed_chunk(self, chunk: _Chunk) -> Seen:
        choices = chunk.choices
        if chunk.error or chunk.object == "error":
            return self._failed(chunk.error)
        self.service_tier = _tier(chunk) or self.service_tier
        reported = None
        if chunk.usage is not None:
            reported = _reported(chunk.usage)
            if reported is not None:
                self.reported = reported
        if not choices:
            found = reported is not None
            usage_only = choices is not None and chunk.usage is not None
            return Seen(0, found, usage_only) if found or usage_only else _NOTHING
        texts: list[str] = []
        reason = None
        for choice in choices:
            texts += _texts(choice)
            if choice.finish_reason and isinstance(choice.finish_reason, str):
                reason = choice.finish_reason
                self.finish_reasons += (reason,)
        size = self._keep(texts).text_bytes if texts else 0
        return Seen(size, reported is not None, finish_reason=reason)

    def _failed(self, error: Any) -> Seen:
        if self.error_code is None:
            code = error.get("code") or error.get("type") if isinstance(error, dict) else None
            self.error_code = str(code or "")[:64]
        return Seen(error=True)

    def _keep(self, texts: list[str]) -> Seen:
        self.chunks += 1
        size = self._texts.add(texts)
        return _SIZES[size] if size < len(_SIZES) else Seen(size)


class _ListeningMeter(OpenAIMeter):
    """Passes on what it hears."""

    __slots__ = ("_heard",)

    def __init__(self, heard: list[str]) -> None:
        super().__init__()
        self._heard = heard

    def feed_texts(self, events: Sequence[bytes], begin: int) -> int:
        del events
        return begin  # each is heard alone

    def _keep(self, texts: list[str]) -> Seen:
        self._heard += texts
        return super()._keep(texts)


def _texts(choice: _Choice) -> list[str]:
    """Everything a choice holds that was generated; most hold one string of content."""
    said = choice.delta or choice.message
    if said is None:
        return _flat(choice.text) if choice.text else []
    content = said.content
    texts = [content] if type(content) is str and content else _flat(content) if content else []
    if said.reasoning_content or said.reasoning:  # some servers fill both with the same words
        texts += _flat(said.reasoning_content or said.reasoning)
    if said.refusal:
        texts += _flat(said.refusal)
    if said.tool_calls:
        texts += _call_texts(said.tool_calls)
    if said.function_call:
        texts += _call_texts(said.function_call)
    return texts


def _call_texts(calls: Any) -> list[str]:
    """Kinds of call differ in where they put the words; only their frame was not generated."""
    texts: list[str] = []
    for call in calls if isinstance(calls, list) else (calls,):
        if isinstance(call, dict):
            said = [value for name, value in call.items() if name not in _FRAME]
            texts += _flat(said, unsaid=None)
        else:
            texts += _flat(call, unsaid=None)
    return texts


_FRAME: Final = frozenset(("id", "type", "index"))


def _flat(value: Any, unsaid: str | None = "type") -> list[str]:
    """Content comes as a string, or as parts that hold strings and, in `unsaid`, what they are."""
    texts: list[str] = []
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, dict):
            pending += [part for name, part in item.items() if name != unsaid][::-1]
        elif isinstance(item, list):
            pending += item[::-1]
    return texts


def _reported(usage: Any) -> Reported | None:
    """On disjoint meters. None unless prompt and output are both there and are counts."""
    if not isinstance(usage, dict):
        return None
    prompt, output = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    total = _count(usage.get("total_tokens"))
    if prompt is None:
        return None
    if usage.get("completion_tokens") is None and total is not None:
        output = total - prompt  # embeddings have no output
    if output is None or output < 0:
        return None
    details = usage.get("completion_tokens_details")
    reasoning = _count(details.get("reasoning_tokens")) or 0 if isinstance(details, dict) else 0
    details = usage.get("prompt_tokens_details")
    cached = written = 0
    if isinstance(details, dict):
        cached = _count(details.get("cached_tokens")) or 0
        written = _count(details.get("cache_write_tokens")) or 0
    cached = cached or _count(usage.get("prompt_cache_hit_tokens")) or 0
    return disjoint(
        prompt, output, total, reasoning=reasoning, cache_read=cached, cache_write=written
    )


def _tier(chunk: _Chunk) -> str | None:
    """Some say it of the answer, some of its usage."""
    found = chunk.service_tier
    if found is None and isinstance(chunk.usage, dict):
        found = chunk.usage.get("service_tier")
    return named_tier(found)


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None
