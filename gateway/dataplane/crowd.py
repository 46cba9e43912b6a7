"""How many things a body may hold. Decoding costs by the value, not by the byte: millions of empty
messages would stop the event loop for seconds, so they are counted before anything is made of them.
"""

import re
from collections.abc import Iterable
from itertools import islice
from typing import Final

from policies.decision import Deny, DenyCode

MOST_FIELDS: Final = 1_000  # of the request itself
MOST_ITEMS: Final = 20_000  # of one field: messages, prompts, inputs
MOST_NUMBERS: Final = 1_000_000  # token ids: more than any context window
MOST_OBJECTS: Final = 50_000  # at any depth: messages and their parts
MOST_PIECES: Final = 1_000_000  # strings, numbers and marks: what counting itself costs

# What lies between two marks, a string, an array of numbers, a mark: each is passed in one step.
_PIECE: Final = re.compile(
    rb'[^"\[\]{},:]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"|\[[-+0-9.eE,\s]*+\]|[\[\]{},:]', re.DOTALL
)
_LONGEST_NAME: Final = 64
_PAST_FIELDS: Final = f"one more than the {MOST_FIELDS} fields that a request may have"
_QUOTE, _COMMA, _COLON, _OPEN, _CLOSE, _BEGIN, _END = b'",:[]{}'


def too_much(body: bytes) -> Deny | None:
    """A Deny that names the field at fault. Whether the body is JSON is not looked at.

    There is one value more than there are commas at most: nearly every body is let by for that.
    """
    return _Census(body).fault() if body.count(b",") >= MOST_ITEMS else None


def one_too_many(fields: Iterable[str]) -> Deny:
    """The same where the fields are more than allowed, and known already."""
    return _refusal(next(islice(fields, MOST_FIELDS, None)), _PAST_FIELDS)


def too_many_messages() -> Deny:
    """The same for a chat, where the messages are counted anyway."""
    return _refusal("messages", f"more than {MOST_ITEMS} items")


class _Census:
    """Goes through the pieces of a body once, for as long as they are not too many."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._field = ""  # of the request, and what it holds:
        self._items = 0
        self._numbers = 0
        self._fields = 0
        self._objects = 0

    def fault(self) -> Deny | None:
        body, depth, key = self._body, 0, b""
        for number, piece in enumerate(_PIECE.finditer(body)):
            mark = body[piece.start()]
            if mark == _QUOTE:
                key = piece[0] if depth == 1 else key
            elif mark == _COMMA:
                self._items += depth == 2
            elif mark == _COLON:
                if depth == 1:
                    self._enter(key)
            elif mark in (_CLOSE, _END):
                depth -= 1
            elif mark == _OPEN and piece.end() - piece.start() > 1:
                self._numbers += body.count(b",", *piece.span()) + 1
            elif mark in (_OPEN, _BEGIN):
                depth += 1
                self._objects += mark == _BEGIN
            if (many := self._too_many(number)) is not None:
                return _refusal(self._field, many)
        return None

    def _enter(self, key: bytes) -> None:
        self._field = key.strip(b'"').decode(errors="replace")
        self._fields += 1
        self._items, self._numbers = 1, 0

    def _too_many(self, pieces: int) -> str | None:
        if self._fields > MOST_FIELDS:
            return _PAST_FIELDS
        if self._items > MOST_ITEMS:
            return f"more than {MOST_ITEMS} items"
        if self._numbers > MOST_NUMBERS:
            return f"more than {MOST_NUMBERS} numbers"
        if self._objects > MOST_OBJECTS or pieces > MOST_PIECES:
            return f"more than {MOST_OBJECTS} objects or {MOST_PIECES} values in the request"
        return None


def _refusal(field: str, many: str) -> Deny:
    field = field[:_LONGEST_NAME]
    return Deny(DenyCode.INVALID_REQUEST, f"{field}: {many}; send fewer", param=field)
