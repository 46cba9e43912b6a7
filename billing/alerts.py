"""When somebody should be told about a budget: what is spent, how fast, and what it will come to.

Values in, findings out; amounts are integers of one unit, whichever, the same for all of a budget.
A finding is named by its rule and mark, so that whoever keeps them can tell each once a window.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, Literal, get_args

import msgspec

from billing.forecast import Forecast

# Those after `forecast` are of no budget; `ledger` is of the books themselves.
Rule = Literal["threshold", "burn_rate", "forecast", "anomaly", "loop", "ledger"]
RULES: Final[tuple[Rule, ...]] = get_args(Rule)

MINUTE_US: Final = 60_000_000
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US
HOURS_PER_WEEK: Final = 168
LEARNT_DAYS: Final = 14  # of history before hours of the week differ
FORECAST_LAST_US: Final = 7 * DAY_US  # the upper bound counts only so shortly before the end

_EPOCH_HOUR: Final = 72  # 1970 began on a Thursday, the week on Monday
_LEAST_PERCENT: Final = 1  # of the budget, before speed is worth a word
_UNLEARNT_PARTS: Final = 1  # of four: every hour alike; the rest as it was
_LEARNT_PARTS: Final = 3
_WINDOWS_IN_BUDGET: Final = 8  # a budget that is shorter than so many of a window is too short
_LONGEST_US: Final = 100 * DAY_US  # beyond a quarter nothing is planned: it is `total`


class Pace(msgspec.Struct, frozen=True):
    """How many times too fast, over two windows at once: the long one says that it matters, the
    short one that it is still so.
    """

    mark: str
    tenths: int  # of the planned spending
    long_us: int
    short_us: int


# For error budgets the third pair is 1: nothing is planned there. Money is planned to be spent.
PACES: Final = (
    Pace("1h", 144, HOUR_US, 5 * MINUTE_US),
    Pace("6h", 60, 6 * HOUR_US, 30 * MINUTE_US),
    Pace("3d", 15, 3 * DAY_US, 6 * HOUR_US),
)


class Watched(msgspec.Struct, frozen=True):
    """A budget in its window. `hard`: what goes beyond is refused."""

    cap: int
    spent: int
    start_us: int
    end_us: int
    at_us: int
    thresholds: tuple[int, ...]  # per cent
    hard: bool


class Finding(msgspec.Struct, frozen=True):
    """`mark` tells findings of one rule apart; `amount` of `expected` is what it is about."""

    rule: Rule
    mark: str
    amount: int
    expected: int


def findings(
    watched: Watched,
    spent_since: Mapping[int, int],
    week: Sequence[int],
    foreseen: Forecast | None,
    least: int,
) -> tuple[Finding, ...]:
    """All there is to tell. `spent_since`: what the last so many microseconds cost, by their
    number, for both windows of each pace. `week` weighs the hours of a week (`hours_of_week`).
    `foreseen` is in the unit of the amounts. Speed below `least` is not worth a word, nor before
    the budget's window has run for the whole long span: what was spent before was planned there.
    """
    found = [*_threshold(watched), *_burn_rates(watched, spent_since, week, least)]
    if foreseen is not None:
        found += _forecast(watched, foreseen)
    return tuple(found)


def hours_of_week(hourly: Iterable[tuple[int, int]], days: int) -> tuple[int, ...]:
    """Weights of the hours of a week in UTC, Monday's first, from (hour since 1970, spent) of past
    `days`: three parts as it was, one part evenly, so that a new habit is no alarm for ever.
    """
    week = [0] * HOURS_PER_WEEK
    for hour, spent in hourly:
        week[(hour + _EPOCH_HOUR) % HOURS_PER_WEEK] += max(0, spent)
    total = sum(week)
    if days < LEARNT_DAYS or not total:
        return (1,) * HOURS_PER_WEEK
    even = _UNLEARNT_PARTS * total
    return tuple(_LEARNT_PARTS * HOURS_PER_WEEK * each + even for each in week)


def planned(watched: Watched, week: Sequence[int], span_us: int) -> tuple[int, int]:
    """What the last `span_us` should have cost, as a fraction: the cap's share by the week's hours
    of it in all hours of the window.
    """
    of_span = _weight(week, watched.at_us - span_us, watched.at_us)
    of_window = _weight(week, watched.start_us, watched.end_us)
    return watched.cap * of_span, of_window


def _threshold(watched: Watched) -> Iterator[Finding]:
    """The highest that is passed: who jumps over several is told once."""
    passed = [each for each in watched.thresholds if 100 * watched.spent >= each * watched.cap]
    if passed and (watched.cap or watched.spent):
        percent = max(passed)
        yield Finding("threshold", str(percent), watched.spent, watched.cap * percent // 100)


def _burn_rates(
    watched: Watched, spent_since: Mapping[int, int], week: Sequence[int], least: int
) -> Iterator[Finding]:
    """The fastest pace of those that both windows exceed."""
    if watched.end_us - watched.start_us > _LONGEST_US:
        return
    for pace in PACES:
        if watched.end_us - watched.start_us < _WINDOWS_IN_BUDGET * pace.long_us:
            continue
        if watched.at_us - watched.start_us < pace.long_us:
            continue
        spent = spent_since[pace.long_us]
        if spent < least or 100 * spent < _LEAST_PERCENT * watched.cap:
            continue
        if all(
            _too_fast(watched, week, spent_since, pace, us) for us in (pace.long_us, pace.short_us)
        ):
            amount, parts = planned(watched, week, pace.long_us)
            yield Finding("burn_rate", pace.mark, spent, amount // parts)
            return


def _too_fast(
    watched: Watched, week: Sequence[int], spent_since: Mapping[int, int], pace: Pace, span_us: int
) -> bool:
    amount, parts = planned(watched, week, span_us)
    return 10 * spent_since[span_us] * parts > pace.tenths * amount


def _forecast(watched: Watched, foreseen: Forecast) -> Iterator[Finding]:
    """Nothing without a claim, and nothing once the money is gone."""
    if not foreseen.claimed or watched.spent >= watched.cap:
        return
    if foreseen.middle_picos >= watched.cap:
        yield Finding("forecast", "likely", foreseen.middle_picos, watched.cap)
    elif foreseen.high_picos >= watched.cap and watched.end_us - watched.at_us <= FORECAST_LAST_US:
        yield Finding("forecast", "possible", foreseen.high_picos, watched.cap)


def _weight(week: Sequence[int], start_us: int, end_us: int) -> int:
    """Of the hours between, parts of hours as parts; never nothing."""
    before = (0, *accumulate(week))
    return max(1, _until(week, before, end_us) - _until(week, before, start_us))


def _until(week: Sequence[int], before: Sequence[int], at_us: int) -> int:
    """Of all hours up to an instant; `before[h]` is the weight of a week's first h hours."""
    hour, inside_us = divmod(at_us, HOUR_US)
    weeks, of_week = divmod(hour + _EPOCH_HOUR, HOURS_PER_WEEK)
    return (weeks * before[-1] + before[of_week]) * HOUR_US + week[of_week] * inside_us
