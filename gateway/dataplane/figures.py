"""Whose figures are billed: the backend's where they can be true, our own count where not."""

from typing import Final

import msgspec

from billing.meters import Meters, Provenance
from gateway.dataplane.count import MAX_COUNTED_BYTES, Tokeniser, count_prompt
from gateway.dataplane.envelope import EMBEDDINGS
from gateway.dataplane.flow import Attempt, Flow

NOTHING: Final = Meters()
_TEMPLATE_SLACK: Final = 1024  # a long system prompt of the backend's own
_MOST_BYTES_A_TOKEN: Final = 48  # on average; the longest single tokens are longer
_SHORT_TEXT_BYTES: Final = 256  # below it an average means nothing


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
    return Figures(reported, Provenance.REPORTED)


async def count(flow: Flow, attempt: Attempt, tokeniser: Tokeniser) -> Figures:
    """The figures by our own count; the backend's where they can be true beside it."""
    route, quote = flow.route, flow.quote
    if route is None or quote is None:
        raise RuntimeError("an attempt that was never routed")
    encoding = route.model.encoding
    prompt = await count_prompt(
        tokeniser, encoding, flow.fields, flow.operation, input_estimate(flow)
    )
    if attempt.paid is not None:
        paid = Meters(input=prompt, output=attempt.paid)
        return Figures(paid, Provenance.COUNTED, paid)
    text = _text(attempt)[:MAX_COUNTED_BYTES]
    output = await tokeniser.count(encoding, [text])
    kept = len(text.encode(errors="replace"))
    whole = kept >= _text_bytes(attempt)
    if not whole and kept:
        output = output * _text_bytes(attempt) // kept
    granted = flow.granted.output_tokens if flow.granted is not None else quote.wanted
    own = Meters(input=prompt, output=min(output, granted * quote.choices))
    reported = _reported(flow, attempt)
    if reported is not None and plausible(flow, attempt, reported) and _near(reported, own):
        return Figures(reported, Provenance.REPORTED, own)
    sure = whole and (attempt.complete or bool(attempt.content_us))
    return Figures(own, Provenance.COUNTED if sure else Provenance.ESTIMATED, own)


def plausible(flow: Flow, attempt: Attempt, meters: Meters) -> bool:
    """Whether a backend's figures can be true. What cannot is kept beside our own count and not
    billed: nothing for a prompt that was not empty, more than fits, more than it was allowed to
    generate, too little for the text that came.
    """
    quote, granted = flow.quote, flow.granted
    if quote is None or granted is None or min(msgspec.structs.astuple(meters)) < 0:
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


def _near(reported: Meters, own: Meters) -> bool:
    """Not much less than what we counted: our tokeniser may differ by a half, not by a choice."""
    return (
        own.output * 2 <= reported.output * 3 + 16 and own.input * 2 <= reported.all_input * 3 + 64
    )


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
