"""The charge that follows from a cost, where nobody set one."""

from typing import Final

from billing.money import format_decimal, parse_decimal
from billing.prices import Rate, RateCard, sealed_card

_MARKUP_DECIMALS: Final = 6
_MARKUP_ONE: Final = 10**_MARKUP_DECIMALS


def marked_up(card: RateCard, markup: str) -> RateCard:
    """The charge that follows from a cost: every rate x `markup`, rounded up to a whole pico per
    token. Versions carry the factor (`price_01*1.25`); a markup of 1 answers the card itself.
    ValueError unless the markup is a decimal above zero with at most 6 decimals. The caller keeps
    the result by (card.id, markup): making it costs a few microseconds.
    """
    factor = parse_decimal(markup, _MARKUP_DECIMALS)
    if factor <= 0:
        raise ValueError(f"a markup of {markup!r} would give tokens away; it must be above zero")
    if factor == _MARKUP_ONE:
        return card
    suffix = f"*{format_decimal(factor, _MARKUP_DECIMALS)}"
    return sealed_card(
        card.currency,
        [
            Rate(
                rate.meter, -(-rate.picos_per_token * factor // _MARKUP_ONE), rate.version + suffix
            )
            for rate in card.rates
        ],
    )
