"""What a backend's way of speaking has to tell us: paths, credentials, and where usage stands."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from billing.meters import Meters


class Reported(msgspec.Struct, frozen=True, gc=False):
    """A backend's own usage figures on our disjoint meters; `reasoning` is part of the output."""

    meters: Meters
    reasoning: int = 0


class Seen(msgspec.Struct, frozen=True, gc=False):
    """What one streamed event held, as far as metering and relaying care."""

    text_bytes: int = 0  # UTF-8 bytes of generated text, reasoning and tool arguments included
    usage: bool = False  # StreamMeter.reported is new
    usage_only: bool = False  # nothing but usage: dropped when the client did not ask for it
    done: bool = False  # the dialect's end mark
    error: bool = False  # the backend reports a failure inside the stream
    unreadable: bool = False  # data that is not this dialect
    finish_reason: str | None = None


class AnswerRead(msgspec.Struct, frozen=True):
    """A plain answer. `text` is for counting only and never leaves the process."""

    reported: Reported | None
    finish_reasons: tuple[str, ...]  # one a choice that gave one
    text: str
    readable: bool  # False: not this dialect's JSON, whatever its status said
    service_tier: str | None = None  # that was served, in the backend's own word


class StreamMeter(Protocol):
    """Reads every event of one stream as it passes; keeps sums, and a bounded copy of the text."""

    reported: Reported | None  # the last usage seen; None is not the same as zero
    chunks: int  # events that held generated text
    finish_reasons: tuple[str, ...]  # in the order they came; one a choice
    done: bool
    error_code: str | None  # of the first error event; "" where it gave none
    service_tier: str | None  # the last that it said it serves in, in its own word

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of all text so far."""
        ...

    def feed(self, event: bytes) -> Seen:
        """One complete event. Never raises for anything a backend can send."""
        ...

    def feed_texts(self, events: Sequence[bytes], begin: int) -> int:
        """As `feed` for as many events from `begin` on as hold nothing but text of one choice, as
        nearly all do; answers where the first other one stands.
        """
        ...

    def generated_text(self) -> str:
        """The text seen so far, at most its first 64 KiB, for counting when usage is missing."""
        ...


class Whole(Protocol):
    """A stream's events put together as the plain answer they would have been."""

    def add(self, event: bytes) -> None: ...

    def body(
        self, choices: int = 0, *, used: Meters | None = None, notice: dict[str, Any] | None = None
    ) -> bytes:
        """With a notice it was cut: of `choices` those without an end are given one, and `used` is
        what is billed.
        """
        ...


class Ending(Protocol):
    """Ends a stream in its own words before the backend does (L13)."""

    def note(self, event: bytes, *, finish: bool) -> None:
        """An event of the stream; `finish`: it ends a choice."""
        ...

    def events(
        self, choices: int, used: Meters, notice: dict[str, Any], *, usage_apart: bool
    ) -> bytes:
        """The last events: ends of the choices that have none, with the notice; usage; the mark."""
        ...


class Dialect(Protocol):
    """One file a dialect; all pure."""

    name: str

    def path(self, operation: str) -> str:
        """Path after the backend's base URL. KeyError for an operation it does not have."""
        ...

    def headers(self, credential: str | None) -> list[tuple[bytes, bytes]]:
        """Request headers every call needs; ValueError for a credential that cannot be one."""
        ...

    def usage_of_answer(self, body: bytes) -> Reported | None:
        """Usage of a plain answer; None where it is missing or not believable as numbers."""
        ...

    def read_answer(self, body: bytes) -> AnswerRead:
        """Usage, finish reason and text in one decode."""
        ...

    def meter(self) -> StreamMeter: ...

    def listening(self, heard: list[str]) -> StreamMeter:
        """A meter that adds every text it reads to `heard`, too."""
        ...

    def whole(self, operation: str) -> Whole: ...

    def ending(self, operation: str) -> Ending: ...
