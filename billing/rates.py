"""How fast a box prefills and decodes, fitted from what it was seen to do, with how sure that is.

    busy seconds of a minute = prefilled / prefill rate + decoded / decode rate
        + requests x overhead

by least squares over minutes, none of the three below nothing. How sure: the fit is made again ten
times, each without a tenth of the minutes that lie together (bad minutes come together), and the
spread of those tells. Exact fractions, so that the same minutes give the same figures everywhere.

A rate is what the box did at the load it had. A box that was never full could have done more.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Final, NamedTuple

import msgspec

from billing.forecast import EXACT
from billing.observed import Minute

LEAST_MINUTES: Final = 60  # in which it was busy: below there is no claim
SURE_PERCENT: Final = 80
WORST_PERCENT: Final = 25  # a standard error beyond this share is no claim either

_GROUPS: Final = 10
_STUDENT: Final = Fraction(1383, 1000)  # 80 % of nine degrees of freedom lie within
_LEAST_VARIETY: Final = Fraction(1, 25)
_PREFILL, _DECODE, _REQUEST = range(3)
_US: Final = 10**6

Vector = list[Fraction]


class Rate(msgspec.Struct, frozen=True):
    """Tokens per second, with the bounds of an 80 % interval. `high` None: it has no upper one."""

    middle: Fraction
    low: Fraction
    high: Fraction | None


class Fitted(msgspec.Struct, frozen=True):
    """A rate is None where nothing can be claimed of it; `because` then says why."""

    prefill: Rate | None
    decode: Rate | None
    overhead_us: int  # of a request
    minutes: int  # that were busy
    at_once: Fraction  # requests, while there was any
    because: tuple[str, ...]


class _Sums(NamedTuple):
    """Of products: columns by columns, and columns by busy time."""

    columns: list[Vector]
    busy: Vector


def fit(seen: Sequence[Minute], cached_ratio: Fraction) -> Fitted:
    """`cached_ratio`: what a cached input token takes of a prefilled one."""
    busy = [each for each in seen if each.busy_us]
    whole = sum(each.busy_us for each in busy)
    at_once = Fraction(sum(each.in_flight_us for each in busy), max(1, whole))
    if len(busy) < LEAST_MINUTES:
        because = f"it was busy in {len(busy)} minutes; {LEAST_MINUTES} are needed"
        return Fitted(None, None, 0, len(busy), at_once, (because,))
    parts = [_sums(group, cached_ratio) for group in _groups(busy)]
    all_of_it = _added(parts)
    if _in_proportion(all_of_it):
        because = "prompts and answers come in one proportion: their times cannot be told apart"
        return Fitted(None, None, 0, len(busy), at_once, (because,))
    middle = _solved(all_of_it)
    others = [_solved(_added(parts[:at] + parts[at + 1 :])) for at in range(_GROUPS)]
    reasons: list[str] = []
    prefill = _rate("prefill", middle[_PREFILL], [each[_PREFILL] for each in others], reasons)
    decode = None
    if any(each.decoded for each in busy):
        decode = _rate("decode", middle[_DECODE], [each[_DECODE] for each in others], reasons)
    overhead_us = int(middle[_REQUEST])
    return Fitted(prefill, decode, overhead_us, len(busy), at_once, tuple(reasons))


def _rate(
    name: str, middle: Fraction, others: Sequence[Fraction], because: list[str]
) -> Rate | None:
    """Of microseconds a token; adds to `because` where nothing can be claimed."""
    if not middle:
        because.append(f"{name}: its time does not show beside the rest")
        return None
    mean = Fraction(sum(others), len(others))
    squares = Fraction(sum((each - mean) ** 2 for each in others))
    error = _root(Fraction(squares * (len(others) - 1), len(others)))
    if 100 * error > WORST_PERCENT * middle:
        percent = int(Fraction(100 * error, middle))
        because.append(f"{name}: off by {percent} %; prompts and answers vary too little to tell")
        return None
    off = _STUDENT * error
    high = None if off >= middle else Fraction(_US, middle - off)
    return Rate(Fraction(_US, middle), Fraction(_US, middle + off), high)


def _in_proportion(sums: _Sums) -> bool:
    """Whether the minutes' prompts and answers point one way: the square of the angle's sine."""
    prompts, both, answers = sums.columns[0][0], sums.columns[0][1], sums.columns[1][1]
    return bool(prompts and answers) and 1 - Fraction(both**2, prompts * answers) < _LEAST_VARIETY


def _sums(group: Iterable[Minute], cached_ratio: Fraction) -> _Sums:
    columns = [[Fraction(0)] * 3 for _ in range(3)]
    busy = [Fraction(0)] * 3
    for each in group:
        prompts: int | Fraction = each.prefilled + cached_ratio * each.cached
        row = (prompts, each.decoded, each.requests)
        for at, value in enumerate(row):
            busy[at] += value * each.busy_us
            for other in range(3):
                columns[at][other] += value * row[other]
    return _Sums(columns, busy)


def _groups(busy: Sequence[Minute]) -> list[Sequence[Minute]]:
    """Ten, of minutes that follow one another."""
    edges = [len(busy) * at // _GROUPS for at in range(_GROUPS + 1)]
    return [busy[start:end] for start, end in pairwise(edges)]


def _added(parts: Sequence[_Sums]) -> _Sums:
    columns = [
        [sum((part.columns[row][at] for part in parts), Fraction(0)) for at in range(3)]
        for row in range(3)
    ]
    return _Sums(columns, [sum((part.busy[at] for part in parts), Fraction(0)) for at in range(3)])


def _solved(sums: _Sums) -> Vector:
    """The best of all fits in which nothing is below nothing: some columns are left at zero."""
    best, explained = [Fraction(0)] * 3, Fraction(0)
    for size in (3, 2, 1):
        for chosen in combinations(range(3), size):
            found = _equations(sums, chosen)
            if found is None or min(found) < 0:
                continue
            # By how much the squares of what is left over are fewer: the larger, the better.
            fewer = sum(
                (value * sums.busy[at] for at, value in zip(chosen, found, strict=True)),
                Fraction(0),
            )
            if fewer > explained:
                explained = fewer
                best = [Fraction(0)] * 3
                for at, value in zip(chosen, found, strict=True):
                    best[at] = value
    return best


def _equations(sums: _Sums, chosen: Sequence[int]) -> Vector | None:
    """Gauss, exactly; None where the columns do not tell apart."""
    rows = [[*(sums.columns[row][at] for at in chosen), sums.busy[row]] for row in chosen]
    for at in range(len(rows)):
        pivot = next((row for row in range(at, len(rows)) if rows[row][at]), None)
        if pivot is None:
            return None
        rows[at], rows[pivot] = rows[pivot], rows[at]
        rows[at] = [Fraction(value, rows[at][at]) for value in rows[at]]
        for row in range(len(rows)):
            if row != at:
                times = rows[row][at]
                rows[row] = [
                    value - times * own for value, own in zip(rows[row], rows[at], strict=True)
                ]
    return [row[-1] for row in rows]


def _root(value: Fraction) -> Fraction:
    """To as many digits as a forecast has."""
    ratio = EXACT.divide(Decimal(value.numerator), Decimal(value.denominator))
    return Fraction(EXACT.sqrt(ratio))
