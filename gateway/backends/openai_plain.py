"""An answer as nearly all are: text alone, and a usage of counts. Read in one decode, without a
dictionary; whatever could be anything else is not taken, and read the long way.
"""

from typing import Annotated, Any, Final

import msgspec

from billing.meters import Meters
from gateway.backends.dialect import AnswerRead, Reported

MOST_TOKENS: Final = 1 << 40  # a figure above is not a count of tokens
_MOST_TIER: Final = 32  # characters; nothing longer is the name of a service tier

_Count = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]
_None = Annotated[list[Any], msgspec.Meta(max_length=0)] | None


class _Message(msgspec.Struct, frozen=True, gc=False):
    content: str | None = None
    reasoning_content: None = None
    reasoning: None = None
    refusal: None = None
    tool_calls: _None = None
    function_call: None = None


class _Choice(msgspec.Struct, frozen=True, gc=False):
    message: _Message
    finish_reason: str | None = None
    delta: None = None


# The long way reads every value of a usage; so a usage with any other field is not taken here.


class _Read(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    audio_tokens: _Count | None = None


class _Written(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    reasoning_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    accepted_prediction_tokens: _Count | None = None
    rejected_prediction_tokens: _Count | None = None


class _Usage(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count | None = None
    prompt_tokens_details: _Read | None = None
    completion_tokens_details: _Written | None = None
    prompt_cache_hit_tokens: _Count | None = None


class _Answer(msgspec.Struct, frozen=True, gc=False):
    choices: list[_Choice]
    usage: _Usage | None = None
    error: None = None
    service_tier: Annotated[str, msgspec.Meta(max_length=_MOST_TIER)] | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def read_plain(body: bytes) -> AnswerRead | None:
    """None: it may be anything, a failure too."""
    try:
        answer = _ANSWER.decode(body)
    except _UNDECODABLE:
        return None
    choices, usage = answer.choices, answer.usage
    reported = _reported(usage) if usage is not None else None
    if len(choices) == 1:
        text, reason = choices[0].message.content or "", choices[0].finish_reason
        ends = () if reason is None else (reason,)
        return AnswerRead(reported, ends, text, True, answer.service_tier)
    reasons = tuple(c.finish_reason for c in choices if c.finish_reason is not None)
    text = "".join(choice.message.content or "" for choice in choices)
    return AnswerRead(reported, reasons, text, True, answer.service_tier)


def _reported(usage: _Usage) -> Reported:
    read, written = usage.prompt_tokens_details, usage.completion_tokens_details
    if read is None and written is None and not usage.prompt_cache_hit_tokens:
        return Reported(Meters(usage.prompt_tokens, 0, 0, 0, usage.completion_tokens), 0)
    cached = read.cached_tokens or 0 if read is not None else 0
    return disjoint(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        reasoning=written.reasoning_tokens or 0 if written is not None else 0,
        cache_read=cached or usage.prompt_cache_hit_tokens or 0,
        cache_write=read.cache_write_tokens or 0 if read is not None else 0,
    )


def named_tier(value: Any) -> str | None:
    """A service tier in the backend's own word, if it is one."""
    return value if type(value) is str and 0 < len(value) <= _MOST_TIER else None


def disjoint(
    prompt: int,
    output: int,
    total: int | None,
    *,
    reasoning: int,
    cache_read: int,
    cache_write: int,
) -> Reported:
    """Figures that overlap as these servers report them, on meters that do not."""
    if reasoning and total == prompt + output + reasoning:
        output += reasoning  # some servers keep hidden reasoning apart from what they call output
    cache_read = cache_read if cache_read < prompt else prompt
    rest = prompt - cache_read
    cache_write = cache_write if cache_write < rest else rest
    meters = Meters(rest - cache_write, cache_read, cache_write, 0, output)
    return Reported(meters, reasoning if reasoning < output else output)
