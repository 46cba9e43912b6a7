"""What a backend may do wrong, by name; tests/integration/test_misbehaving.py has what comes of it.

Those of time are elsewhere: silent, slow and stalling ones, and one that goes on after its client
has left, in test_errors.py, test_streaming.py, test_transport*.py and test_scripted_backend.py.
"""

import gzip
import json
from typing import Any, Final

from tests.scripted_answers import Script
from tests.scripted_wire import head

_USAGE: Final = {"prompt_tokens": 6, "completion_tokens": 3, "total_tokens": 9}
_CHOICE: Final = {"index": 0, "finish_reason": "stop"}
_WHOLE: Final = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [_CHOICE | {"message": {"role": "assistant", "content": " the of and"}}],
        "usage": _USAGE,
    }
).encode()
_EVENTS: Final = "text/event-stream"


def _chunk(word: str | None, **more: Any) -> str:
    delta = {} if word is None else {"content": word}
    choice = {"index": 0, "delta": delta, "finish_reason": None if word else "stop"}
    told = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return json.dumps(told | {"choices": [choice]} | more)


_LAST: Final = _chunk(None)
_TOLD: Final = json.dumps(json.loads(_LAST) | {"choices": [], "usage": _USAGE})
_WORDS: Final = [_chunk(" the"), _chunk(" of"), _chunk(" and")]
_HONEST: Final = [*_WORDS, _LAST, _TOLD, "[DONE]"]


def _stream(*payloads: str, end: str = "\n\n", before: bytes = b"", after: bytes = b"") -> Script:
    body = before + "".join(f"data: {one}{end}" for one in payloads).encode() + after
    return _raw(head(200, _EVENTS, len(body)) + body)


def _raw(said: bytes, **more: Any) -> Script:
    return Script(raw=said.decode("latin-1"), **more)


def _plain(body: bytes, length: int | None = None, **headers: str) -> bytes:
    return head(200, "application/json", len(body) if length is None else length, headers) + body


def _chunked(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return head(200, _EVENTS, None, {"transfer-encoding": "chunked"}) + framed + end


def _with_usage(**figures: Any) -> Script:
    told = json.loads(_WHOLE) | {"usage": _USAGE | figures}
    return _raw(_plain(json.dumps(told).encode()))


PLAIN: Final[dict[str, Script]] = {
    "an error body under 200": _raw(_plain(b'{"error": {"message": "no", "code": 500}}')),
    "not JSON": _raw(_plain(b"<html>busy</html>")),
    "an empty body": _raw(_plain(b"")),
    "invalid UTF-8": _raw(_plain(_WHOLE.replace(b" the of and", b"\xff\xfe\xfd"))),
    "null bytes": _raw(_plain(b"\0" * 64)),
    "a body shorter than its length": _raw(_plain(_WHOLE, len(_WHOLE) + 50), hang_up=True),
    "a body longer than its length": _raw(_plain(_WHOLE) + b"and more"),
    "a wrong content type": _raw(head(200, "text/plain", len(_WHOLE)) + _WHOLE),
    "gzip that nobody asked for": _raw(
        _plain(gzip.compress(_WHOLE), **{"content-encoding": "gzip"})
    ),
    "a redirect": _raw(head(302, "text/plain", 0, {"location": "http://127.0.0.1:1/"})),
    "100 Continue first": _raw(b"HTTP/1.1 100 Continue\r\n\r\n" + _plain(_WHOLE)),
    "HTTP/1.0, ended by its close": _raw(
        b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + _WHOLE, hang_up=True
    ),
    "a reset in the middle of the head": _raw(b"HTTP/1.1 200 OK\r\ncontent-ty", hang_up=True),
    "no HTTP at all": _raw(b"hello there\r\n\r\n", hang_up=True),
    "usage below zero": _with_usage(completion_tokens=-5),
    "usage beyond 64 bits": _with_usage(completion_tokens=10**30),
    "usage that is text": _with_usage(completion_tokens="many"),
    "usage of a million": _with_usage(completion_tokens=1_000_000),
    "usage of nothing": _with_usage(prompt_tokens=0, completion_tokens=0),
    "no usage": Script(tokens=3, usage="missing"),
    "a storm of 429": Script(status=429, retry_after="1"),
    "a storm of 503": Script(status=503),
    "500 after work": Script(status=500),
    "more tokens than it was allowed": Script(tokens=90, ignore_max_tokens=True),
}

STREAMED: Final[dict[str, Script]] = {
    "[DONE] twice": _stream(*_HONEST, "[DONE]"),
    "data after [DONE]": _stream(*_HONEST, _chunk(" more")),
    "every chunk twice": _stream(*[one for one in _WORDS for _ in range(2)], *_HONEST[3:]),
    "invalid JSON in a chunk": _stream(_WORDS[0], "{nonsense", *_HONEST[1:]),
    "invalid UTF-8 in a chunk": _stream(*_HONEST, before=b"data: \xff\xfe\n\n"),
    "null bytes between events": _stream(*_HONEST, before=b"\0\0\n\n"),
    "a byte order mark": _stream(*_HONEST, before=b"\xef\xbb\xbf"),
    "lines that end in CR LF": _stream(*_HONEST, end="\r\n\r\n"),
    "lines that end in CR": _stream(*_HONEST, end="\r\r"),
    "comments only": _stream(before=b": keep-alive\n\n" * 50),
    "an event of a megabyte": Script(tokens=3, event_padding_bytes=1 << 20, force_usage=True),
    "usage twice, the first of it wrong": Script(tokens=8, usage="twice"),
    "a stream without usage": Script(tokens=8, usage="missing"),
    "no [DONE]": Script(tokens=8, no_done=True),
    "an error event, then the end": Script(tokens=8, error_after_chunks=3),
    "cut after some chunks": Script(tokens=8, cut_after_chunks=4),
    "chunked framing that is garbage": _raw(
        _chunked(f"data: {_WORDS[0]}\n\n".encode(), end=b"zz\r\n"), hang_up=True
    ),
    "trailers": _raw(
        _chunked(*[f"data: {one}\n\n".encode() for one in _HONEST], end=b"0\r\nx-t: 1\r\n\r\n")
    ),
    "more tokens than allowed, streamed": Script(tokens=90, ignore_max_tokens=True),
    "a plain answer where a stream was asked for": _raw(_plain(_WHOLE)),
}

# A whole stream as it goes over the wire, and where its last event is complete.
WIRE: Final = _chunked(*[f"data: {one}\n\n".encode() for one in _HONEST[2:]])
ENDED_AT: Final = WIRE.index(b"data: [DONE]\n\n") + len(b"data: [DONE]\n\n")


def cut_at(offset: int) -> Script:
    """The stream up to there, then nothing: the connection is closed."""
    return _raw(WIRE[:offset], hang_up=True)
