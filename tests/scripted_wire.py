"""The bytes a scripted backend writes: heads, events, error bodies."""

import asyncio
from typing import Any

import msgspec

from tests.scripted_answers import Script


class EventWriter:
    """Writes events until the scripted byte; `cut` is true from there on."""

    def __init__(self, transport: asyncio.Transport, script: Script, *, chunked: bool) -> None:
        self.cut = False
        self._transport = transport
        self._line_end = script.line_end.encode()
        self._left = script.cut_at_byte
        self._chunked = chunked

    def write(self, payload: bytes) -> None:
        event = b"data: " + payload + self._line_end * 2
        if self._left is not None:
            if len(event) > self._left:
                event, self.cut = event[: self._left], True
            self._left -= len(event)
        if event and not self._transport.is_closing():
            self._transport.write(b"%x\r\n%s\r\n" % (len(event), event) if self._chunked else event)

    def end(self) -> None:
        if self._chunked and not self._transport.is_closing():
            self._transport.write(b"0\r\n\r\n")


def head(
    status: int, kind: str, length: int | None, headers: dict[str, str] | None = None
) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", f"content-type: {kind}"]
    if length is not None:
        lines.append(f"content-length: {length}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def error(message: str, code: int) -> bytes:
    told = {"message": message, "type": "scripted_error", "param": None, "code": code}
    return msgspec.json.encode({"error": told})


def encoded(chunk: dict[str, Any], script: Script) -> bytes:
    plain = msgspec.json.encode(chunk)
    return plain.replace(b'":', b'": ') if script.spaced else plain
