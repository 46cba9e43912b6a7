"""What the scripted backend answers, as pure values: scripts, counts and bodies.

Rules of counting, so that a test can say beforehand what usage must be:
- prompt tokens = whitespace-separated words of all text + 4 for every message + 85 for every image;
  a prompt of token ids counts its ids;
- generated tokens = as many as the script says, at most the request's max tokens, for each choice;
  each is one common English word that is one token in o200k_base and cl100k_base as well.
"""

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

WORDS = " the of and to in is that for it as was with be by on not he his but at are this have from"
VOCABULARY = tuple(" " + word for word in WORDS.split())


class Script(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How to behave. In a request: `script:{"tokens": 5, ...}` anywhere in its text."""

    # what is generated
    tokens: int = 16  # for each choice, where max tokens allows it
    ignore_max_tokens: bool = False
    word: str | None = None  # instead of the vocabulary
    event_padding_bytes: int = 0  # makes each event larger
    tool_call: bool = False  # the words are a tool call's arguments
    reasoning_tokens: int = 0  # the first so many words are reasoning
    cached_tokens: int = 0  # of the prompt
    # what is said about it
    usage: Literal["honest", "missing", "zero", "lying", "twice", "continuous", "broken"] = "honest"
    lie_percent: int = 200  # `lying` reports this share of the truth
    force_usage: bool = False  # in streams that did not ask, too
    service_tier: str | None = None  # that it says it serves in
    # how it is said
    status: int = 200
    retry_after: str | None = None
    body: str | None = None  # instead of any answer
    content_type: str | None = None
    error_after_chunks: int | None = None  # an error event, then [DONE]
    no_done: bool = False
    spaced: bool = False  # JSON with spaces after its separators
    line_end: Literal["\n", "\r\n", "\r"] = "\n"
    raw: str | None = None  # every byte sent, head included, then the connection stays as it is
    # when, and how far
    delay_ms: int = 0  # before the head
    chunk_delay_ms: int = 0  # before every event
    silent: bool = False  # reads the request, says nothing
    stall_after_chunks: int | None = None  # then silence, connection open
    cut_after_chunks: int | None = None  # then the connection is closed
    cut_at_byte: int | None = None  # of the body, events and plain answers alike
    close: bool = False  # `connection: close`, no length: the end of the body is the end of it
    hang_up: bool = False  # keep-alive promised, connection closed after the answer
    hang_up_after_ms: int = 0  # so long after it; a request that comes in between is not read
    keep_generating: bool = False  # after the client is gone


class Asked(msgspec.Struct, frozen=True):
    """The parts of a request that matter here."""

    operation: str  # chat | completions | embeddings
    body: dict[str, Any]

    @property
    def stream(self) -> bool:
        return self.body.get("stream") is True

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))

    @property
    def choices(self) -> int:
        return int(self.body.get("n") or 1)

    @property
    def max_tokens(self) -> int | None:
        return self.body.get("max_completion_tokens") or self.body.get("max_tokens")

    @property
    def wants_usage(self) -> bool:
        return bool((self.body.get("stream_options") or {}).get("include_usage"))

    def inputs(self) -> list[Any]:
        """Embedding inputs or completion prompts, always as a list of whole inputs."""
        given = self.body.get("input", self.body.get("prompt", ""))
        if isinstance(given, list) and not (given and isinstance(given[0], int)):
            return given
        return [given]


def prompt_tokens(asked: Asked) -> int:
    if asked.operation == "chat":
        return sum(4 + _count(m.get("content")) for m in asked.body.get("messages", []))
    return sum(_count(one) for one in asked.inputs())


def generated_tokens(asked: Asked, script: Script) -> int:
    """For each choice."""
    limit = asked.max_tokens
    return script.tokens if limit is None or script.ignore_max_tokens else min(script.tokens, limit)


def script_in(asked: Asked) -> Script | None:
    """The script written into the request's text, if there is one."""
    text = "\n".join(_texts(asked.body.get("messages") or asked.inputs()))
    at = text.find("script:{")
    if at < 0:
        return None
    found, _ = json.JSONDecoder().raw_decode(text[at + 7 :])
    return msgspec.convert(found, Script)


def usage(asked: Asked, script: Script, generated: int) -> dict[str, Any] | None:
    """What the answer reports after `generated` tokens of all choices together."""
    if script.usage == "missing":
        return None
    if script.usage == "broken":
        return {"prompt_tokens": "many", "completion_tokens": -1}
    prompt = prompt_tokens(asked)
    if script.usage == "zero":
        prompt = generated = 0
    elif script.usage == "lying":
        prompt, generated = (
            prompt * script.lie_percent // 100,
            generated * script.lie_percent // 100,
        )
    if asked.operation == "embeddings":
        return {"prompt_tokens": prompt, "total_tokens": prompt}
    figures: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
    }
    if script.cached_tokens:
        figures["prompt_tokens_details"] = {"cached_tokens": script.cached_tokens}
    if script.reasoning_tokens:
        figures["completion_tokens_details"] = {"reasoning_tokens": script.reasoning_tokens}
    return figures


def plain(asked: Asked, script: Script, number: int) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    if asked.operation == "embeddings":
        data = [
            {"object": "embedding", "index": i, "embedding": _vector(asked, i)}
            for i in range(len(asked.inputs()))
        ]
        answer = {"object": "list", "model": asked.model, "data": data}
    else:
        count = generated_tokens(asked, script)
        answer = _envelope(asked, number, streamed=False)
        answer["choices"] = [
            _plain_choice(asked, script, index, count) for index in range(asked.choices)
        ]
    figures = usage(asked, script, 0 if asked.operation == "embeddings" else _all(asked, script))
    if figures is not None:
        answer["usage"] = figures
    return answer | _tier(script)


def events(asked: Asked, script: Script, number: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """A stream's chunks, each with the number of tokens generated for it."""
    count = generated_tokens(asked, script)
    reports = asked.wants_usage or script.force_usage
    done = 0
    for at in range(count):
        for index in range(asked.choices):
            done += 1
            chunk = _envelope(asked, number, streamed=True) | _tier(script)
            chunk["choices"] = [_delta_choice(asked, script, index, at)]
            if script.event_padding_bytes:
                chunk["padding"] = "x" * script.event_padding_bytes
            if reports:
                chunk["usage"] = (
                    usage(asked, script, done) if script.usage == "continuous" else None
                )
            yield 1, chunk
    for index in range(asked.choices):
        chunk = _envelope(asked, number, streamed=True) | _tier(script)
        ending = {"index": index, "finish_reason": _finish_reason(asked, script, count)}
        chunk["choices"] = [ending | ({"delta": {}} if asked.operation == "chat" else {"text": ""})]
        if reports:
            chunk["usage"] = None
        yield 0, chunk
    if reports and script.usage != "missing":
        for generated in (done // 2, done) if script.usage == "twice" else (done,):
            chunk = _envelope(asked, number, streamed=True)
            yield 0, chunk | {"choices": [], "usage": usage(asked, script, generated)}


def _tier(script: Script) -> dict[str, str]:
    return {} if script.service_tier is None else {"service_tier": script.service_tier}


def _all(asked: Asked, script: Script) -> int:
    return generated_tokens(asked, script) * asked.choices


def _envelope(asked: Asked, number: int, *, streamed: bool) -> dict[str, Any]:
    chat = asked.operation == "chat"
    kind = (
        ("chat.completion.chunk" if streamed else "chat.completion") if chat else "text_completion"
    )
    name = f"{'chatcmpl' if chat else 'cmpl'}-{number}"
    return {"id": name, "object": kind, "created": 1_790_000_000, "model": asked.model}


def _plain_choice(asked: Asked, script: Script, index: int, count: int) -> dict[str, Any]:
    words = [_word(script, at) for at in range(count)]
    choice: dict[str, Any] = {"index": index, "finish_reason": _finish_reason(asked, script, count)}
    if asked.operation == "completions":
        return choice | {"text": "".join(words), "logprobs": None}
    text = "".join(words[script.reasoning_tokens :])
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if script.reasoning_tokens:
        message["reasoning_content"] = "".join(words[: script.reasoning_tokens])
    if script.tool_call:
        message |= {"content": None, "tool_calls": [_tool_call(text, first=True)]}
    return choice | {"message": message, "logprobs": None}


def _delta_choice(asked: Asked, script: Script, index: int, at: int) -> dict[str, Any]:
    word = _word(script, at)
    choice: dict[str, Any] = {"index": index, "finish_reason": None}
    if asked.operation == "completions":
        return choice | {"text": word}
    delta: dict[str, Any] = {"role": "assistant"} if at == 0 else {}
    if script.tool_call:
        delta["tool_calls"] = [_tool_call(word, first=at == 0)]
    elif at < script.reasoning_tokens:
        delta["reasoning_content"] = word
    else:
        delta["content"] = word
    return choice | {"delta": delta, "logprobs": None}


def _tool_call(arguments: str, *, first: bool) -> dict[str, Any]:
    call: dict[str, Any] = {"index": 0, "function": {"arguments": arguments}}
    if first:
        call |= {"id": "call_1", "type": "function"}
        call["function"]["name"] = "look_up"
    return call


def _finish_reason(asked: Asked, script: Script, count: int) -> str:
    if count < script.tokens:
        return "length"
    return "tool_calls" if script.tool_call and asked.operation == "chat" else "stop"


def _word(script: Script, at: int) -> str:
    return script.word if script.word is not None else VOCABULARY[at % len(VOCABULARY)]


def _vector(asked: Asked, index: int) -> list[float] | str:
    vector = [((index + 1) * (at + 1)) % 7 / 8 for at in range(8)]
    if asked.body.get("encoding_format") == "base64":
        return base64.b64encode(struct.pack("<8f", *vector)).decode()
    return vector


def _count(content: Any) -> int:
    if isinstance(content, str):
        return len(content.split())
    if not isinstance(content, list):
        return 0
    if content and isinstance(content[0], int):
        return len(content)
    return sum(
        85 if part.get("type") == "image_url" else _count(part.get("text")) for part in content
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
