"""OpenAI streams put together again: as one plain answer, or to an end that the backend did not
reach. Pure.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from billing.meters import Meters
from gateway.backends.sse import payload

_KINDS: Final = {"chat": "chat.completion", "completions": "text_completion"}
_OF_CHUNKS: Final = frozenset(("choices", "usage", "object"))
_ONCE: Final = frozenset(("id", "type", "role", "index"))  # said again, they say the same
_CALLS: Final = frozenset(("tool_calls", "function_call"))  # what stands instead of words
_DECODER: Final = msgspec.json.Decoder(dict[str, Any])

Plain = dict[str, Any]


class _Pieces(list[str]):
    """A text that is still growing: joined once, at the end."""


class OpenAIWhole:
    """One plain answer, growing event by event. Whatever else the events say is kept."""

    def __init__(self, operation: str) -> None:
        self._chat = operation == "chat"
        self._answer: Plain = {"object": _KINDS[operation]}
        self._choices: dict[int, Plain] = {}
        self._usage: Any = None

    def add(self, event: bytes) -> None:
        """An event that the meter could read; what is no chunk adds nothing."""
        chunk = _chunk(event)
        if chunk is None:
            return
        for name, value in chunk.items():
            if name not in _OF_CHUNKS and value is not None:
                self._answer[name] = value
        self._usage = chunk.get("usage") or self._usage
        choices = chunk.get("choices")
        for place, choice in enumerate(choices if isinstance(choices, list) else ()):
            if isinstance(choice, dict):
                self._add_choice(_index(choice, place), choice)

    def body(
        self, choices: int = 0, *, used: Meters | None = None, notice: Plain | None = None
    ) -> bytes:
        """The answer. With a notice it was cut: of `choices` those without an end are given one,
        and `used` is what is billed.
        """
        answer = dict(self._answer)
        if notice is not None:
            for index in range(choices):
                self._choices.setdefault(index, {})
        answer["choices"] = [
            self._choice(index, choice, "stop" if notice is None else "length")
            for index, choice in sorted(self._choices.items())
        ]
        usage = self._usage if used is None else usage_of(used)
        if usage is not None:
            answer["usage"] = usage
        return msgspec.json.encode(answer if notice is None else answer | {"meterhouse": notice})

    def _add_choice(self, index: int, choice: Plain) -> None:
        known = self._choices.setdefault(index, {})
        for name, value in choice.items():
            if name == "delta":
                if isinstance(value, dict):
                    _grow(known.setdefault("message", {}), value)
            elif name == "finish_reason":
                known[name] = value or known.get(name)
            elif name != "index":
                _grow(known, {name: value})

    def _choice(self, index: int, choice: Plain, end: str) -> Plain:
        said: Plain = _finished(choice)
        reason = said.pop("finish_reason", None) or end
        if self._chat:
            message: Plain = said.get("message", {})
            content = None if _CALLS & message.keys() else ""
            said["message"] = {"role": "assistant", "content": content} | message
        else:
            said.setdefault("text", "")
        return {"index": index} | said | {"logprobs": said.get("logprobs"), "finish_reason": reason}


class OpenAIEnding:
    """What is needed to end a stream in its own words before the backend does."""

    def __init__(self, operation: str) -> None:
        self._chat = operation == "chat"
        self._frame: bytes | None = None
        self._ended: set[int] = set()

    def note(self, event: bytes, *, finish: bool) -> None:
        """An event the client gets; `finish`: it ends a choice."""
        if self._frame is None:
            self._frame = event
        if finish:
            chunk = _chunk(event) or {}
            for place, choice in enumerate(chunk.get("choices") or ()):
                if choice.get("finish_reason"):
                    self._ended.add(_index(choice, place))

    def events(self, choices: int, used: Meters, notice: Plain, *, usage_apart: bool) -> bytes:
        """The last events: every choice that has no end gets `length`, then usage (in a chunk of
        its own for a client that asked for one), then the end mark. The notice stands in the chunk
        with the ends.
        """
        frame = {
            name: value
            for name, value in (_chunk(self._frame or b"") or {}).items()
            if name in ("id", "created", "model", "system_fingerprint", "service_tier")
        }
        frame["object"] = "chat.completion.chunk" if self._chat else "text_completion"
        words: Plain = {"delta": {}} if self._chat else {"text": ""}
        ends = [
            {"index": index} | words | {"logprobs": None, "finish_reason": "length"}
            for index in range(choices)
            if index not in self._ended
        ]
        last = frame | {"choices": ends, "meterhouse": notice}
        usage = usage_of(used)
        if usage_apart:
            chunks = [last | {"usage": None}, frame | {"choices": [], "usage": usage}]
        else:
            chunks = [last | {"usage": usage}]
        return b"".join([*map(_event, chunks), b"data: [DONE]\n\n"])


def usage_of(used: Meters) -> Plain:
    """Our own count in OpenAI's words."""
    return {
        "prompt_tokens": used.all_input,
        "completion_tokens": used.output,
        "total_tokens": used.total,
        "prompt_tokens_details": {"cached_tokens": used.cache_read},
    }


def _event(chunk: Plain) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def _chunk(event: bytes) -> Plain | None:
    try:
        return _DECODER.decode(payload(event) or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # a comment, the end mark


def _index(item: Mapping[str, Any], place: int) -> int:
    index = item.get("index")
    return index if type(index) is int and index >= 0 else place


def _grow(known: Plain, said: Mapping[str, Any]) -> None:
    """Texts are continued, lists lengthened, parts with an index found again by it."""
    for name, value in said.items():
        before = known.get(name)
        if value is None or (name in _ONCE and before):
            known.setdefault(name, None)
        elif isinstance(value, str) and name not in _ONCE:
            if not isinstance(before, _Pieces):
                before = known[name] = _Pieces()
            if not (name == "name" and "".join(before) == value):  # some say it in every chunk
                before.append(value)
        elif isinstance(value, dict):
            if not isinstance(before, dict):
                before = known[name] = {}
            _grow(before, value)
        elif isinstance(value, list):
            if not isinstance(before, list):
                before = known[name] = []
            _lengthen(before, value)
        else:
            known[name] = value


def _lengthen(known: list[Any], said: Iterable[Any]) -> None:
    for item in said:
        if not (isinstance(item, dict) and type(item.get("index")) is int):
            known.append(item)
            continue
        for part in known:
            if isinstance(part, dict) and part.get("index") == item["index"]:
                break
        else:
            part = {"index": item["index"]}
            known.append(part)
        _grow(part, item)


def _finished(value: Any) -> Any:
    """The same with its texts joined, and without the places that only a stream needs."""
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _finished(part) for name, part in value.items() if name != "index"}
    if isinstance(value, list):
        return [_finished(part) for part in value]
    return value
