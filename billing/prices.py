"""Effective-dated, immutable prices, and the rate card that is frozen at admission."""

import msgspec

from billing.meters import Meter


class Rate(msgspec.Struct, frozen=True, array_like=True):
    """One meter's price on a card: picos per token and the version it came from."""

    meter: Meter
    picos_per_token: int
    version: str


class RateCard(msgspec.Struct, frozen=True, array_like=True):
    """The prices in force for one subject at one instant. Content-addressed, so it never changes."""

    id: str
    currency: str
    rates: tuple[Rate, ...]


class PriceVersion(msgspec.Struct, frozen=True):
    """One immutable price. `amount_per_million` x 10^6 is picos per token: exact by construction."""

    id: str
    book: str  # charge | cost
    model: str | None  # charge: what clients ask for
    tenant_id: str | None  # charge: a tenant's contract price; None = the list
    backend_id: str | None  # cost
    upstream_model: str | None  # cost
    meter: Meter
    picos_per_token: int
    currency: str
    effective_from_us: int
