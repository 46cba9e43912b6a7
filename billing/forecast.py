"""What a budget's window will come to at its end, and how sure that is: from past days, exactly
repeatable.

Log-level by exponential smoothing, times a shrunk weekday effect; the days ahead are drawn from
past residuals in blocks of a week, because a bad day follows a bad day, and the level itself is
taken as uncertain. Below seven days with spending there is only a run rate, and no claim how sure
it is.

Amounts are picos. Nothing here is money that anybody pays: logarithms are decimals of a fixed
context, draws come from a fixed seed, so that the same days always give the same forecast.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Context, Decimal, localcontext
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from billing.periods import Window, window

LEAST_DAYS: Final = 7  # with spending: below there is no interval
FULL_DAYS: Final = 14  # from here on weekdays count in full
MOST_DAYS: Final = 56  # what is older says little about the days ahead
INTERVAL_PERCENT: Final = 80

_WEEK: Final = 7
_PATHS: Final = 400
_SMOOTHING: Final = Decimal("0.25")
_FLOOR_PARTS: Final = 100  # a day without spending counts as a hundredth of a usual one
_SHRINK_EARLY: Final = 3  # days of no effect that every weekday's own are averaged with
_SHRINK_FULL: Final = 1
_SCALE: Final = 10**6  # of factors
_LEVEL_PARTS: Final = Decimal("0.45")  # of a day's spread: how far the level may be off
_DRIFT_PARTS: Final = Decimal("0.03")  # more of it for every day ahead
_EARLY_PARTS: Final = Decimal("0.65")  # of both where weekdays are still in the spread
_SEED: Final = 20261121
_MASK: Final = 2**64 - 1
EXACT: Final = Context(prec=18)


class Forecast(msgspec.Struct, frozen=True):
    """What is spent at the end of the window. `low` and `high` are the bounds of an 80 % interval
    where `claimed`; without enough history they are what the quietest and the busiest day so far
    would come to, and nothing is said of how likely that is.
    """

    low_picos: int
    middle_picos: int
    high_picos: int
    claimed: bool
    days: int  # of history it rests on


class Pattern(NamedTuple):
    """Of past days, in logarithms: how far each weekday lies off, the level after the last day, and
    how far each day lay off what was to be expected of it.
    """

    weekdays: list[Decimal]  # Monday's first
    level: Decimal
    residuals: list[Decimal]


def forecast(
    days: Sequence[int],
    first_weekday: int,
    ahead: Sequence[tuple[int, int]],
    spent_picos: int,
) -> Forecast | None:
    """At the end of the days `ahead`, with `spent_picos` spent in the window already.

    `days`: what whole days cost, the last is yesterday; `first_weekday` is that of the first one,
    Monday is 0. `ahead`: (weekday, how much of the day is left in millionths), today first. Never
    below what is spent. None without a whole day of history.
    """
    if not days:
        return None
    first_weekday = (first_weekday + max(0, len(days) - MOST_DAYS)) % _WEEK
    recent = [max(0, day) for day in days[-MOST_DAYS:]]
    if sum(day > 0 for day in recent) < LEAST_DAYS:
        return _run_rate(recent, ahead, spent_picos)
    with localcontext(EXACT):
        totals = sorted(_paths(recent, first_weekday, ahead))
    low, middle, high = (totals[_PATHS * percent // 100] for percent in (10, 50, 90))
    return Forecast(spent_picos + low, spent_picos + middle, spent_picos + high, True, len(recent))


def days_left(span: Window, zone: ZoneInfo, at_us: int) -> tuple[tuple[int, int], ...]:
    """What is left of the window, day by day on the zone's clock, as `forecast` takes it."""
    found = []
    while at_us < span.end_us:
        day = window("day", zone, at_us)
        share = (day.end_us - at_us) * _SCALE // (day.end_us - day.start_us)
        found.append((date.fromisoformat(day.id.removeprefix("d")).weekday(), share))
        at_us = day.end_us
    return tuple(found)


def pattern(days: Sequence[int], first_weekday: int) -> Pattern:
    """What there is to learn of days, of which at least one cost something. Within a context of
    fixed precision, so that it is the same everywhere.
    """
    with localcontext(EXACT):
        floor = least_day(days)
        logs = [EXACT.ln(Decimal(max(day, floor))) for day in days]
        weekdays = [(first_weekday + at) % _WEEK for at in range(len(days))]
        effects = _weekday_effects(logs, weekdays)
        plain = [log - effects[weekday] for log, weekday in zip(logs, weekdays, strict=True)]
        return Pattern(effects, *_level(plain))


def least_day(days: Sequence[int]) -> int:
    """What a day without spending counts as."""
    return max(1, sum(days) // (len(days) * _FLOOR_PARTS))


def _run_rate(days: Sequence[int], ahead: Sequence[tuple[int, int]], spent: int) -> Forecast:
    left = sum(share for _, share in ahead)
    low, high = min(days) * left // _SCALE, max(days) * left // _SCALE
    middle = sum(days) * left // (_SCALE * len(days))
    return Forecast(spent + low, spent + middle, spent + high, False, len(days))


def _paths(
    days: Sequence[int], first_weekday: int, ahead: Sequence[tuple[int, int]]
) -> Iterator[int]:
    """What the days ahead come to, drawn many times."""
    effects, level, residuals = pattern(days, first_weekday)
    base = int(EXACT.exp(level) * _SCALE)
    factors = [_factor(effects[weekday]) * share for weekday, share in ahead]
    errors = [_factor(error) for error in residuals]
    unsure = _spread(residuals) * (_LEVEL_PARTS + _DRIFT_PARTS * len(ahead))
    if len(days) < FULL_DAYS:
        unsure *= _EARLY_PARTS
    levels = [_factor(unsure * _normal(at)) for at in range(_PATHS)]
    draw = _SEED
    for shift in levels:
        total, drawn = 0, len(errors)
        for at, factor in enumerate(factors):
            if at % _WEEK == 0:
                draw = (draw * 6364136223846793005 + 1442695040888963407) & _MASK
                drawn = (draw >> 33) % len(errors)
            total += factor * errors[drawn]
            drawn = (drawn + 1) % len(errors)
        yield base * shift * total // _SCALE**5


def _weekday_effects(logs: Sequence[Decimal], weekdays: Sequence[int]) -> list[Decimal]:
    """How far each weekday lies off the week around it, shrunk towards nothing by how few there
    are of it; together they are nothing.
    """
    shrink = _SHRINK_FULL if len(logs) >= FULL_DAYS else _SHRINK_EARLY
    off: list[list[Decimal]] = [[] for _ in range(_WEEK)]
    for at, (log, weekday) in enumerate(zip(logs, weekdays, strict=True)):
        start = min(max(0, at - 3), max(0, len(logs) - _WEEK))
        around = logs[start : start + _WEEK]
        off[weekday].append(log - _mean(around))
    shrunk = [EXACT.divide(sum(each, Decimal(0)), Decimal(len(each) + shrink)) for each in off]
    middle = _mean(shrunk)
    return [each - middle for each in shrunk]


def _level(plain: Sequence[Decimal]) -> tuple[Decimal, list[Decimal]]:
    """The level after the last day, and how far each day lay off the level before it."""
    level = _mean(plain[:_WEEK])
    residuals = []
    for each in plain:
        residuals.append(each - level)
        level += _SMOOTHING * (each - level)
    middle = _mean(residuals)
    return level, [each - middle for each in residuals]


def _spread(residuals: Sequence[Decimal]) -> Decimal:
    """Their standard deviation."""
    squares = _mean([EXACT.multiply(each, each) for each in residuals])
    return EXACT.sqrt(squares)


def _normal(at: int) -> Decimal:
    """The at-th of `_PATHS` draws that together are about normal: sums of twelve uniform ones."""
    draw, total = (_SEED + at) & _MASK, 0
    for _ in range(12):
        draw = (draw * 6364136223846793005 + 1442695040888963407) & _MASK
        total += draw >> 44
    return EXACT.divide(Decimal(total - 6 * 2**20), Decimal(2**20))


def _mean(values: Sequence[Decimal]) -> Decimal:
    return EXACT.divide(sum(values, Decimal(0)), Decimal(len(values)))


def _factor(log: Decimal) -> int:
    return int(EXACT.exp(log) * _SCALE)
