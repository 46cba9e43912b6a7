"""Usage rows derived anew: their money from tokens and cards, their postings from their money."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from billing.ledger import Posting, charge_pair, cost_pair
from billing.meters import Meters
from billing.prices import sealed_card
from billing.rating import Tariff, UnpricedMeterError, tariff
from gateway.stores.sql import rate_cards
from gateway.stores.sql.unreadable import looked_at

Told = tuple[str, str, str, int, str, int]  # of a posting, without its entry


class Booked(NamedTuple):
    """A usage row, in the order in which it is sealed: that of the table's columns."""

    event_id: str
    request_id: str
    attempt: int
    winner: bool
    tenant_id: str
    team_id: str
    team_path: str
    key_id: str
    model: str
    backend_id: str
    upstream_model: str
    region: str
    operation: str
    stream: bool
    admitted_at_us: int
    finished_at_us: int
    recorded_at_us: int
    ttft_us: int
    duration_us: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    output_tokens: int
    reasoning_tokens: int
    provenance: str
    reported: str | None
    counted: str | None
    currency: str
    charge_card: str
    cost_card: str | None
    charge_picos: int
    cost_picos: int
    counter_nanos: int
    status: int
    end_by: str
    end_phase: str
    tags: str
    hold: str
    shadow_of: str
    end_user: str | None
    service_tier: str | None
    tier_asked: str | None
    tier_served: str | None


# Columns that came after the chains began: null in every row that was sealed without them.
LATER: Final = ("end_user", "service_tier", "tier_asked", "tier_served")
_FIRST: Final = len(Booked._fields) - len(LATER)
_NOTHING: Final = (None,) * len(LATER)


def sealed(row: Sequence[Any]) -> Sequence[Any]:
    """A row as it is sealed: what it says in later columns stands in an object at the end. One that
    says nothing there is sealed as it was before there were any.
    """
    said = row[_FIRST:]
    if said == _NOTHING:
        return row[:_FIRST]
    later = {name: value for name, value in zip(LATER, said, strict=True) if value is not None}
    return (*row[:_FIRST], later) if later else row[:_FIRST]


class Deriving:
    """Remembers the cards it has met: there are few."""

    def __init__(self) -> None:
        self._tariffs: dict[str, Tariff] = {}
        self._met: set[str] = set()

    def faults(
        self, connection: Connection, rows: Sequence[Booked], told: Mapping[str, Sequence[Told]]
    ) -> Iterator[str]:
        wanted = {card for row in rows for card in (row.charge_card, row.cost_card) if card}
        for card_id in sorted(wanted - self._met, key=str):
            self._met.add(card_id)
            yield from looked_at(f"rate card {card_id}", partial(self._learn, connection, card_id))
        for row in rows:
            of_it = partial(self._faults, row, told.get(row.event_id, ()))
            yield from looked_at(f"usage row {row.event_id}", of_it)

    def _learn(self, connection: Connection, card_id: str) -> tuple[str, ...]:
        for card in rate_cards.get(connection, [card_id]).values():
            if sealed_card(card.currency, card.rates).id == card.id:
                self._tariffs[card.id] = tariff(card)
        return ()

    def _faults(self, row: Booked, told: Iterable[Told]) -> tuple[str, ...]:
        fault = self._fault(row, told)
        return (f"usage row {row.event_id}: {fault}",) if fault else ()

    def _fault(self, row: Booked, told: Iterable[Told]) -> str:
        meters = Meters(
            row.input_tokens,
            row.cache_read_tokens,
            row.cache_write_5m_tokens,
            row.cache_write_1h_tokens,
            row.output_tokens,
        )
        try:
            charge = self._tariffs[row.charge_card].of(meters) if row.winner else 0
            cost = self._tariffs[row.cost_card].of(meters) if row.cost_card else 0
        except (KeyError, UnpricedMeterError):
            return "the prices that it was rated by are gone, or others"
        if (row.charge_picos, row.cost_picos) != (charge, cost):
            return "its money is not what its tokens come to on its cards"
        where = (row.event_id, row.tenant_id, row.team_id)
        derived = (
            *charge_pair(*where, charge, row.currency, row.admitted_at_us),
            *cost_pair(*where, row.backend_id, cost, row.currency, row.admitted_at_us),
        )
        if sorted(map(told_of, derived)) != sorted(told):
            return "its postings are not those that follow from it"
        return ""


def told_of(each: Posting) -> Told:
    return (each.kind, each.account, each.tenant_id, each.amount_picos, each.currency, each.at_us)
