"""Whether somebody spends unlike himself: the last 24 hours against his own past, weekday by
weekday.

The measure is the forecast's: the logarithm of a day's spending off its level and weekday, over how
far days usually lie off, by the median so that a bad day of the past hides none of today. Two
things must be so: the day is far off, and the money is worth a word.

Amounts are integers of one unit; a day is any 24 hours, so that none is ever half over.
"""

from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import Final

import msgspec

from billing.forecast import EXACT, FULL_DAYS, LEAST_DAYS, least_day, pattern

LEARNT_DAYS: Final = 35  # of the past that are looked at
QUIET_US: Final = 7 * 86_400_000_000  # for so long after it was told, only twice as much is news

_SPREADS: Final = Decimal(4)  # so many usual distances off is far off
_NORMAL: Final = Decimal("1.4826")  # of a median distance: the standard deviation of normal ones
_LEAST_SPREAD: Final = Decimal("0.225")  # steady spending may still be 2.4 times as high one day


class Anomaly(msgspec.Struct, frozen=True):
    """`amount` was spent where `expected` is usual, of `days` of history."""

    amount: int
    expected: int
    days: int


def anomaly(days: Sequence[int], least: int) -> Anomaly | None:
    """What is unlike the rest about the last of these days, the others before it in order. None
    where it is like them, where there is too little to compare with (fourteen days from the first
    spending on, seven of them with some), or where what is too much is below `least`.
    """
    if not days:
        return None
    today, past = days[-1], _lived([max(0, day) for day in days[:-1]])
    if len(past) < FULL_DAYS or sum(day > 0 for day in past) < LEAST_DAYS:
        return None
    with localcontext(EXACT):
        seen = pattern(past, -len(past) % 7)
        middle = _median(seen.residuals)
        usual = seen.level + seen.weekdays[0] + middle
        spread = _NORMAL * _median([abs(each - middle) for each in seen.residuals])
        off = EXACT.ln(Decimal(max(today, least_day(past)))) - usual
        expected = int(EXACT.exp(usual))
    if off < _SPREADS * max(spread, _LEAST_SPREAD) or today - expected < max(1, least):
        return None
    return Anomaly(today, expected, len(past))


def _lived(days: Sequence[int]) -> Sequence[int]:
    """From the first on which something was spent."""
    first = next((at for at, day in enumerate(days) if day), len(days))
    return days[first:]


def _median(values: Sequence[Decimal]) -> Decimal:
    """The lower one of two."""
    return sorted(values)[(len(values) - 1) // 2]
