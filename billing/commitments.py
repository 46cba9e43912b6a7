"""What a tenant agreed to spend in a month, a quarter or a year, by the days of its terms."""

import calendar
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from typing import Final, Literal

import msgspec

from billing.money import (
    format_decimal,
    format_picos,
    half_up,
    minor_picos,
    parse_decimal,
    parse_picos,
    round_half_up,
)

TermKind = Literal["month", "quarter", "year"]

_DECIMALS: Final = 4  # of a percent
WHOLE: Final = 100 * 10**_DECIMALS
_MOST: Final = 1_000 * 10**_DECIMALS  # ten times the price
_ODD_LEAST: Final = 50 * 10**_DECIMALS
_ODD_MOST: Final = 300 * 10**_DECIMALS
_ODD_STEP: Final = 3  # times what it takes the place of
_MONTHS: Final[dict[TermKind, int]] = {"month": 1, "quarter": 3, "year": 12}
_DAY: Final = timedelta(days=1)


class Commitment(msgspec.Struct, frozen=True, kw_only=True):
    """Immutable. In force until the next one of its tenant begins, or to its last day; one of 0
    ends it. Days are of the tenant's calendar; of an amount, picos of the tenant's currency.
    """

    id: str
    amount_picos: int  # of a whole term
    term: TermKind  # of the calendar
    first: date
    last: date | None = None
    prepaid: bool = False  # paid when the term begins; else what is missing is, when it ends
    overage_e4: int = WHOLE  # of the price, what usage beyond it is charged
    rollover_e4: int = 0  # of the term's amount, what may be used in the next term at most


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """One month, quarter or year of a commitment, or what of it the commitment holds for."""

    commitment: Commitment
    first: date
    last: date
    committed_picos: int

    @property
    def key(self) -> str:
        """What its lines name it by: the same for ever."""
        return f"{self.commitment.id}/{self.first.isoformat()}"

    @property
    def rollover_picos(self) -> int:
        """What may be used in the next term at most: rounded down, so never more than is said."""
        return self.committed_picos * self.commitment.rollover_e4 // WHOLE

    def months(self) -> tuple[str, ...]:
        """Those that the term has a day of, such as `2026-11`: their usage counts as a whole."""
        first, last = _month_number(self.first), _month_number(self.last)
        return tuple(f"{n // 12:04d}-{n % 12 + 1:02d}" for n in range(first, last + 1))


def terms(commitments: Iterable[Commitment], until: date, currency: str) -> list[Term]:
    """Of one tenant's commitments, those that begin by the day `until`, in their order."""
    ordered = sorted(commitments, key=lambda each: (each.first, each.id))
    found: list[Term] = []
    for place, each in enumerate(ordered):
        last = min(each.last or date.max, until_next(ordered, place))
        found += _terms_of(each, last, until, currency)
    return found


def until_next(ordered: Sequence[Commitment], place: int) -> date:
    """The last day before the next one."""
    following = ordered[place + 1 : place + 2]
    return following[0].first - _DAY if following else date.max


def term_begins(commitment: Commitment, day: date) -> bool:
    """Whether one may take the place of this one on that day: no term that has begun is cut."""
    beyond = commitment.last is not None and day > commitment.last
    return beyond or _span(commitment.term, day)[0] == day


def check(amount: str, currency: str) -> int:
    """Picos. ValueError for less than nothing, or finer than the currency's minor unit."""
    picos = parse_picos(amount)
    if picos < 0:
        raise ValueError(f"{amount} is less than nothing")
    if picos != minor_picos(round_half_up(picos, currency), currency):
        raise ValueError(f"a commitment of {amount} is finer than {currency} has units for")
    return picos


def parse_share(text: str, most: int = WHOLE) -> int:
    """Ten thousandths of a percent. ValueError for more than 4 decimals, or beyond `most`."""
    found = parse_decimal(text, _DECIMALS)
    if not 0 <= found <= most:
        raise ValueError(f"{text} percent is not between 0 and {format_share(most)}")
    return found


def parse_overage(text: str) -> int:
    """The same of a price: at most ten times of it."""
    return parse_share(text, _MOST)


def format_share(e4: int) -> str:
    return format_decimal(e4, _DECIMALS)


def odd(commitment: Commitment, before: Commitment | None) -> str | None:
    """Why one person does not decide this alone; None where he does."""
    if commitment.amount_picos and not _ODD_LEAST <= commitment.overage_e4 <= _ODD_MOST:
        said = format_share(commitment.overage_e4)
        return f"usage beyond it at {said} percent of its price is under half of it or over thrice"
    if before is None or before.amount_picos == 0:
        return None
    a_month = commitment.amount_picos * _MONTHS[before.term]
    if a_month > _ODD_STEP * before.amount_picos * _MONTHS[commitment.term]:
        said = f"{format_picos(commitment.amount_picos)} a {commitment.term}"
        was = f"{format_picos(before.amount_picos)} a {before.term}"
        return f"{said} is over three times what was agreed before, {was}"
    return None


def _terms_of(commitment: Commitment, last: date, until: date, currency: str) -> Iterator[Term]:
    first = commitment.first
    while commitment.amount_picos and first <= min(last, until):
        begins, ends = _span(commitment.term, first)
        end = min(ends, last)
        due, whole = (end - first).days + 1, (ends - begins).days + 1
        step = minor_picos(1, currency) * whole
        minor = half_up(commitment.amount_picos * due, step)
        yield Term(
            commitment=commitment,
            first=first,
            last=end,
            committed_picos=minor_picos(minor, currency),
        )
        if end == date.max:
            return
        first = end + _DAY


def _span(term: TermKind, day: date) -> tuple[date, date]:
    """First and last day of the calendar's month, quarter or year that the day is in."""
    months = _MONTHS[term]
    begins = (day.month - 1) // months * months + 1
    ends = begins + months - 1
    last = calendar.monthrange(day.year, ends)[1]
    return date(day.year, begins, 1), date(day.year, ends, last)


def _month_number(day: date) -> int:
    return day.year * 12 + day.month - 1
