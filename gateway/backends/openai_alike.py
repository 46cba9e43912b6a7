"""Events of a stream that are nothing but text.

Nearly all of a stream differ in their text alone. What stands around it is learned from one of
them, and of those alike only the texts are decoded: of many that came together in one go.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

import msgspec

_MOST_LESSONS: Final = 5  # a stream that has not shown what its events have in common never will
_FEWEST: Final = 3  # that are read together


class _TextDelta(msgspec.Struct, frozen=True, gc=False):
    """Nothing but text; whatever could be something else makes it undecodable."""

    content: str
    reasoning_content: None = None
    reasoning: None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None


class _TextChoice(msgspec.Struct, frozen=True, gc=False):
    delta: _TextDelta
    finish_reason: None = None


class _TextChunk(msgspec.Struct, frozen=True, gc=False):
    choices: tuple[_TextChoice]
    usage: None = None
    error: None = None
    service_tier: Any = None


_TEXT: Final = msgspec.json.Decoder(_TextChunk)
_STRING: Final = msgspec.json.Decoder(str)
_STRINGS: Final = msgspec.json.Decoder(list[str])
_UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)


class Alike:
    """Belongs to one stream."""

    __slots__ = ("_closing", "_lessons", "_opening", "_text_from", "_text_of", "_text_to", "tier")

    def __init__(self) -> None:
        self._opening = self._closing = b"\0"  # of no event
        self._text_from, self._text_to = 1, -1
        self._text_of = itemgetter(slice(1, -1))
        self._lessons = _MOST_LESSONS
        self.tier: Any = None  # what stands for the service tier in what was learned from

    def read(self, events: Sequence[bytes], begin: int, texts: list[str]) -> int:
        """Adds the texts of the events from `begin` on that are mere text, except empty ones.
        Answers which event is the first that is something else.
        """
        at, count = begin, len(events)
        together = count - begin >= _FEWEST
        try:
            while at < count:
                event, begins, ends = events[at], self._text_from, self._text_to
                if event[:begins] == self._opening and event[ends:] == self._closing:
                    if together:
                        together = False
                        at += self._read_together(events[at:], texts)
                        continue
                    text = _STRING.decode(event[begins:ends])
                elif event.startswith(b"data: "):
                    chunk = _TEXT.decode(event[6:-2])
                    text = chunk.choices[0].delta.content
                    if self._lessons:
                        self.tier = chunk.service_tier
                        self._learn(event, text)
                else:
                    break
                if text:
                    texts.append(text)
                at += 1
        except _UNDECODABLE:
            pass  # something else than text
        return at

    def _read_together(self, events: Sequence[bytes], texts: list[str]) -> int:
        """How many of the first events were read, the first of which is alike: all that are but for
        the last few, or none.

        No string has a line feed in it. So what stands between two of them here is in no text, and
        where there are as many strings as events, each event has one and nothing else.
        """
        end = len(events)
        while events[end - 1][self._text_to :] != self._closing:
            end -= 1
        strings = list(map(self._text_of, events[:end]))
        all_but_ends = b"".join(events[:end])[self._text_from : self._text_to]
        if all_but_ends != (self._closing + self._opening).join(strings):
            return 0
        try:
            found = _STRINGS.decode(b"[%b]" % b",\n".join(strings))
        except _UNDECODABLE:
            return 0
        if len(found) != end:
            return 0
        texts.extend(filter(None, found))
        return end

    def _learn(self, event: bytes, text: str) -> None:
        """What surrounds the text of this event, if it can be told. JSON being what it is, another
        event with the same surroundings and any other string between them is the same but for it.
        """
        self._lessons -= 1
        if self._lessons == _MOST_LESSONS - 1:
            return  # the first says who speaks, so hardly any is like it
        string = msgspec.json.encode(text)
        opening, name, rest = event.partition(b'"content":')
        opening += name + b" " * rest.startswith(b" ")  # some servers write one
        rest = event[len(opening) :]
        closing = rest.removeprefix(string)
        if not name or len(closing) == len(rest):
            return
        other = b"%b.%b" % (string[:-1], string[-1:])
        if _TEXT.decode(opening[6:] + other + closing[:-2]).choices[0].delta.content == text + ".":
            self._opening, self._closing = opening, closing
            self._text_from, self._text_to = len(opening), -len(closing)
            self._text_of = itemgetter(slice(self._text_from, self._text_to))
