"""A month priced anew: what its usage would be charged by other prices, against what it was.

Amounts are what is booked, request by request. Where a price depends on the quantity of a month,
what the month's total takes off again stands beside them.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from billing.meters import Meters
from billing.month_steps import over_booked
from billing.prices import Band, RateCard, card_for
from billing.rating import UnpricedMeterError, rate

_ENCODER: Final = msgspec.msgpack.Encoder()


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One team and model: requests, those that another amount would be booked for, and picos."""

    team_id: str
    model: str
    requests: int
    corrected: int
    old_picos: int
    new_picos: int


class Repriced(msgspec.Struct, frozen=True, kw_only=True):
    """`unpriced`: requests that no price is in force for; they stay as they were charged. `digest`
    is that of every request with the cards and amounts of both sides: equal ones book the same.
    """

    lines: tuple[Line, ...]
    unpriced: int
    old_tiers_picos: int  # what the month's total takes off what was booked
    new_tiers_picos: int
    digest: str


def card_instead(meters: Meters, card: RateCard, bands: Sequence[Band]) -> RateCard | None:
    """What a request that was booked on `card` is to be booked on; the card itself where that makes
    no difference, None where `bands` have no price for what it used.
    """
    if not bands:
        return None
    found = card_for(bands, meters.all_input)
    try:
        same = rate(meters, found) == rate(meters, card)
    except UnpricedMeterError:
        return None
    return card if same and not (_counts(card) or _counts(found)) else found


class Tally:
    """Requests are added in one order, always the same; memory grows with teams and cards only."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], Line] = {}
        self._old: dict[str, tuple[RateCard, Meters]] = {}
        self._new: dict[str, tuple[RateCard, Meters]] = {}
        self._unpriced = 0
        self._hash = hashlib.sha256()

    def add(
        self,
        event_id: str,
        team_id: str,
        model: str,
        meters: Meters,
        old: RateCard,
        new: RateCard | None,
    ) -> None:
        """`new` as `card_instead` answers it."""
        self._unpriced += new is None
        found = old if new is None else new
        was, is_ = rate(meters, old), rate(meters, found)
        before = self._lines.get((team_id, model))
        self._lines[team_id, model] = Line(
            team_id=team_id,
            model=model,
            requests=1 + (before.requests if before else 0),
            corrected=(found.id != old.id) + (before.corrected if before else 0),
            old_picos=was + (before.old_picos if before else 0),
            new_picos=is_ + (before.new_picos if before else 0),
        )
        _count(self._old, old, meters)
        _count(self._new, found, meters)
        told = (event_id, team_id, model, old.id, new.id if new else "", str(was), str(is_))
        self._hash.update(_ENCODER.encode(told))

    def repriced(self) -> Repriced:
        return Repriced(
            lines=tuple(line for _, line in sorted(self._lines.items())),
            unpriced=self._unpriced,
            old_tiers_picos=over_booked(self._old.values()),
            new_tiers_picos=over_booked(self._new.values()),
            digest=self._hash.hexdigest(),
        )


def _counts(card: RateCard) -> bool:
    return any(each.schedule is not None for each in card.rates)


def _count(month: dict[str, tuple[RateCard, Meters]], card: RateCard, meters: Meters) -> None:
    if _counts(card):
        _, before = month.get(card.id, (card, Meters()))
        month[card.id] = card, before + meters
