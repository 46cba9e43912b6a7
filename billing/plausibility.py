"""Whether a price looks as if its unit was mistaken."""

from typing import Final

from billing.money import counter_exponent

_LEAP: Final = 3
_PLAUSIBLE_PICOS: Final = (500, 1_000_000_000)  # 0.0005 to 1000 a million tokens
_LARGE_UNIT: Final = 9  # decimals of the counters of a currency whose unit is worth some
_SMALL_UNIT_WORTH: Final = 1_000


def is_leap(before: int, after: int) -> bool:
    """Whether a price moves so far that a unit was mistaken rather than a price changed: over
    threefold, up or down, from nothing or to nothing.
    """
    if before == after:
        return False
    return max(before, after) > _LEAP * min(before, after)


def is_implausible(picos_per_token: int, currency: str) -> bool:
    """Whether a price is so far from what models cost that its unit was mistaken: a price of a
    token or of a thousand, written as one of a million. Nothing at all is a price that is meant.
    ValueError for an unknown currency.
    """
    worth = 1 if counter_exponent(currency) == _LARGE_UNIT else _SMALL_UNIT_WORTH
    least, most = (picos * worth for picos in _PLAUSIBLE_PICOS)
    return picos_per_token != 0 and not least <= picos_per_token <= most
