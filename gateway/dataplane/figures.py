"""Whose figures are billed: the backend's where they can be true, our own count where not."""

from typing import Final

import msgspec

from billing.meters import Meters, Provenance
from gateway.dataplane.count import MOST_COUNTED, Tokeniser
from gateway.dataplane.envelope import EMBEDDINGS, given
from gateway.dataplane.flow import Attempt, Flow
from gateway.dataplane.prompt import count_prompt

NOTHING: Final = Meters()
_TEMPLATE_SLACK: Final = 1024  # a long system prompt of the backend's own
_MOST_BYTES_A_TOKEN: Final = 48  # on average; the longest single tokens are longer
_SHORT_TEXT_BYTES: Final = 256  # below it an average means nothing
_REPORTED: Final = Provenance.REPORTED  # by name: a member is looked up the slow way each time


class Figures(msgspec.Struct, frozen=True):
    """What one attempt used, and how sure that is. `counted` is our own count, where we made
    one.
    """

    usage: Meters
    provenance: Provenance
    counted: Meters | None = None


def at_once(flow: Flow, attempt: Attempt) -> Figures | None:
    """The figures where nothing has to be counted; None: count first."""
    if not attempt.won:
        heard = _reported(flow, attempt) if attempt.complete else None
        if heard is not None and plausible(flow, attempt, heard):  # it lost a race by a moment
            return Figures(heard, Provenance.REPORTED)
        # A backend that answered with an error did no work that we know of; one that fell silent
        # may have read the prompt.
        if attempt.status and attempt.status != 200:
            return Figures(NOTHING, Provenance.COUNTED)
        return Figures(Meters(input=input_estimate(flow)), Provenance.ESTIMATED)
    reported = _reported(flow, attempt)
    if reported is None or not plausible(flow, attempt, reported):
        return None
    if flow.quote is not None and flow.quote.choices > 1 and _text_bytes(attempt):
        return None  # some engines report one choice of many
    return Figures(reported, _REPORTED)


async def count(flow: Flow, attempt: Attempt, tokeniser: Tokeniser) -> Figures:
    """The figures by our own count; the backend's where they can be true beside it."""
    route, quote = flow.route, flow.quote
    if route is None or quote is None:
        raise RuntimeError("an attempt that was never routed")
    prompt = await count_prompt(
        tokeniser, route.model, flow.fields, flow.operation, input_estimate(flow)
    )
    tokens = min(prompt.tokens, quote.input_bound)
    if attempt.paid is not None:
        paid = Meters(input=tokens, output=attempt.paid)
        return Figures(paid, _sureness(sure=prompt.exact), paid)
    output, whole = await _generated(attempt, tokeniser, route.model.encoding)
    reported = _reported(flow, attempt)
    most = _granted(flow)
    own = Meters(input=tokens, output=_delivered(flow, output, most, reported))
    if (
        reported is not None
        and plausible(flow, attempt, reported)
        and _near(reported, output=min(output, most), prompt=prompt.least)
    ):
        return Figures(reported, Provenance.REPORTED, own)
    ended = attempt.complete or bool(attempt.content_us)
    return Figures(own, _sureness(sure=whole and ended and prompt.exact), own)


def _sureness(*, sure: bool) -> Provenance:
    return Provenance.COUNTED if sure else Provenance.ESTIMATED


async def _generated(attempt: Attempt, tokeniser: Tokeniser, encoding: str) -> tuple[int, bool]:
    """Tokens of the text that came, and whether all of it was counted."""
    text = _text(attempt)
    output = await tokeniser.count(encoding, [text])
    if attempt.meter is None:
        return output, len(text) <= MOST_COUNTED
    kept, came = len(text.encode(errors="replace")), attempt.meter.text_bytes
    if 0 < kept < came:
        output = -(-output * came // kept)
    return output, kept >= came


def _granted(flow: Flow) -> int:
    """Output tokens of all choices that the backend was allowed."""
    if flow.quote is None:
        return 0
    granted = flow.granted.output_tokens if flow.granted is not None else flow.quote.wanted
    return granted * flow.quote.choices


def _delivered(flow: Flow, output: int, most: int, reported: Meters | None) -> int:
    """Our count of an answer, not above what was granted where only the tokenisers may differ: a
    backend that keeps to its limit never exceeds its hold (L2). One that does not keep to it, by
    its own word or by far, is billed what came, as visible overrun.
    """
    echoed = bytes(given(flow.fields, "echo")) == b"true"  # then the prompt is in the text
    if output <= most or echoed:
        return min(output, most)
    if output * 2 > most * 3 + 16:
        return output
    return max(most, min(output, reported.output)) if reported is not None else most


def plausible(flow: Flow, attempt: Attempt, meters: Meters) -> bool:
    """Whether a backend's figures can be true. What cannot is kept beside our own count and not
    billed: nothing for a prompt that was not empty, more than fits, more than it was allowed to
    generate, too little for the text that came.
    """
    quote, granted = flow.quote, flow.granted
    if quote is None or granted is None or meters.input < 0 or meters.output < 0:
        return False
    if meters.cache_read < 0 or meters.cache_write_5m < 0 or meters.cache_write_1h < 0:
        return False
    if not 0 < meters.all_input <= quote.input_bound + _TEMPLATE_SLACK:
        return False
    if meters.output > (granted.output_tokens + 1) * quote.choices:
        return False
    return _text_bytes(attempt) <= meters.output * _MOST_BYTES_A_TOKEN + (
        _SHORT_TEXT_BYTES if meters.output else 0
    )


def input_estimate(flow: Flow) -> int:
    return flow.ask.input_estimate if flow.ask is not None else 0


def _near(reported: Meters, *, output: int, prompt: int) -> bool:
    """Not much less than what we counted: our tokeniser may differ by a half, not by a choice."""
    return output * 2 <= reported.output * 3 + 16 and prompt * 2 <= reported.all_input * 3 + 64


def _reported(flow: Flow, attempt: Attempt) -> Meters | None:
    if attempt.reported is None:
        return None
    meters = attempt.reported.meters
    if meters.output and flow.operation == EMBEDDINGS:
        # Vectors are no tokens: a figure here would have no price.
        return msgspec.structs.replace(meters, output=0)
    return meters


def _text(attempt: Attempt) -> str:
    return attempt.meter.generated_text() if attempt.meter is not None else attempt.plain_text


def _text_bytes(attempt: Attempt) -> int:
    """UTF-8 bytes of text in a stream; characters of a whole answer, which is close enough."""
    if attempt.meter is not None:
        return attempt.meter.text_bytes
    return len(attempt.plain_text)
