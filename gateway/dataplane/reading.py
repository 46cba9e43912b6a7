"""A body becomes what the gateway knows of it: envelope, fields, media, number of prompts.

A large one is read in a thread. msgspec keeps the interpreter's lock, so the loop still waits for a
step of decoding, some milliseconds each; that there is no step of seconds is `crowd`'s doing.
"""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from gateway.dataplane.crowd import (
    MOST_FIELDS,
    MOST_ITEMS,
    one_too_many,
    too_many_messages,
    too_much,
)
from gateway.dataplane.envelope import (
    CHAT,
    COMPLETIONS,
    Envelope,
    Fields,
    envelope_of,
    fields_of,
    given,
)
from gateway.dataplane.media import MediaParts, media_parts, text_messages
from gateway.dataplane.plain_chat import plain_chat
from gateway.dataplane.rewrite import around_limits
from policies.decision import Deny

LARGE_BYTES: Final = 256 * 1024
_THREADS: Final = 2
_TOKEN_IDS: Final = re.compile(rb"\[[-+0-9.eE,\s]*+\]\s*")


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What was found in a body."""

    envelope: Envelope
    fields: Fields
    parts: MediaParts | None  # None: nothing but text
    prompts: int  # how many one request carries; each gets its own output


def read(body: bytes, operation: str) -> Reading | Deny:
    """A Deny names the field at fault."""
    large = len(body) > (LARGE_BYTES if operation == CHAT else MOST_ITEMS)
    if large and (deny := too_much(body)) is not None:
        return deny
    fields = fields_of(body)
    if type(fields) is Deny:
        return fields
    if len(fields) > MOST_FIELDS:
        return one_too_many(fields)
    plain = plain_chat(body) if operation == CHAT else None
    envelope = envelope_of(fields, operation) if plain is None else plain[0]
    if type(envelope) is Deny:
        return envelope
    if (deny := around_limits(fields)) is not None:
        return deny
    if plain is not None:
        return _texts(envelope, fields, plain[1])
    if operation != CHAT:
        prompt = given(fields, "prompt" if operation == COMPLETIONS else "input")
        return Reading(envelope, fields, None, _prompts(memoryview(prompt)))
    return _chat(body, envelope, fields)


def _chat(body: bytes, envelope: Envelope, fields: Fields) -> Reading | Deny:
    messages = given(fields, "messages")
    texts = text_messages(messages)
    if texts is not None:
        return _texts(envelope, fields, texts)
    if len(body) > MOST_ITEMS and (deny := too_much(body)) is not None:
        return deny
    return Reading(envelope, fields, media_parts(messages), 1)


def _texts(envelope: Envelope, fields: Fields, messages: int) -> Reading | Deny:
    return Reading(envelope, fields, None, 1) if messages <= MOST_ITEMS else too_many_messages()


class LargeBodies:
    """Threads for the few bodies that are large; others would not be worth the way there."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="read")

    async def read(self, body: bytes, operation: str) -> Reading | Deny:
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, read, body, operation
        )

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _prompts(given: memoryview) -> int:
    """One for a string or one array of token ids; else the length of the array."""
    if bytes(given[:1]) != b"[" or _TOKEN_IDS.fullmatch(given):
        return 1
    return len(msgspec.json.decode(given, type=list[msgspec.Raw]))
