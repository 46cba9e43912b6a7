"""Rate cards: the frozen prices that usage rows point to. Content-addressed and never changed."""

from collections.abc import Collection, Iterable

import msgspec
from sqlalchemy import Connection, select

from billing.prices import Rate, RateCard
from gateway.stores.sql.bulk import insert_new
from gateway.stores.sql.tables import rate_cards

_ENCODER = msgspec.msgpack.Encoder()
_RATES = msgspec.msgpack.Decoder(tuple[Rate, ...])


class CardConflictError(ValueError):
    """A card's id is taken by other prices. Ids are hashes of the content: one is forged."""


def put(connection: Connection, cards: Iterable[RateCard]) -> None:
    """Store the cards that are not there yet. CardConflictError if a namesake differs."""
    wanted: dict[str, RateCard] = {}
    for card in cards:
        known = wanted.setdefault(card.id, card)
        if known is not card and known != card:
            raise CardConflictError(f"two different rate cards call themselves {card.id}")
    rows = [(card.id, card.currency, _ENCODER.encode(card.rates)) for card in wanted.values()]
    fresh = insert_new(connection, rate_cards, sorted(rows))
    stored = get(connection, wanted.keys() - fresh)
    for id_, card in stored.items():
        if card != wanted[id_]:
            raise CardConflictError(f"the ledger has other prices under rate card {id_}")


def get(connection: Connection, ids: Collection[str]) -> dict[str, RateCard]:
    """The cards by id; ids that are unknown are absent."""
    found = connection.execute(select(rate_cards).where(rate_cards.c.id.in_(list(ids))))
    return {row.id: RateCard(row.id, row.currency, _RATES.decode(row.rates)) for row in found}
