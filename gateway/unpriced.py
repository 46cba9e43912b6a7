"""Routes that nobody priced: requests on them are refused, so better known before the first one."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

import msgspec
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from billing.prices import PriceBook, RateCard, can_price
from billing.service_tiers import ServiceTier
from gateway.stores.sql import configuration, prices
from gateway.stores.sql.rows import Configuration, Model, Price, Target, Tenant

REMEDY: Final = (
    "POST /admin/v1/prices, POST /admin/v1/prices/import, or give the backend what it costs (tco)"
)
_WITHOUT_OUTPUT: Final = frozenset({"embeddings"})
_MOST_TOLD: Final = 20

_LOG: Final = logging.getLogger(__name__)


class Unpriced(msgspec.Struct, frozen=True):
    """One model at one backend, in the currency of so many tenants. `lacks` is input or output, and
    `tier` the service tier that lacks it: of others than the standard one those are looked at that
    somebody has begun to price.
    """

    model: str
    backend: str
    upstream_model: str
    currency: str
    lacks: str
    tenants: int
    tier: str = ServiceTier.STANDARD.value

    def words(self) -> str:
        many = "1 tenant" if self.tenants == 1 else f"{self.tenants} tenants"
        tier = "" if self.tier == ServiceTier.STANDARD else f" for service tier {self.tier}"
        return (
            f"model {self.model} has no {self.lacks} price{tier} in {self.currency} at backend "
            f"{self.backend} ({self.upstream_model}): {many} cannot use it there"
        )


def tell(engine: Engine, at_us: int) -> None:
    """A line in the log for each, when a process starts; a database that is away is told of by
    others.
    """
    with suppress(SQLAlchemyError):
        found = unpriced(configuration.load(engine), at_us)
        for route in found[:_MOST_TOLD]:
            _LOG.warning("%s; %s", route.words(), REMEDY)
        if len(found) > _MOST_TOLD:
            more = len(found) - _MOST_TOLD
            _LOG.warning("%d more routes have no price: `meterhouse doctor` lists them", more)


def unpriced(config: Configuration, at_us: int) -> tuple[Unpriced, ...]:
    """Each route that has neither a charge nor a cost to make one of, at this instant."""
    book = PriceBook(map(prices.version_of, config.prices))
    names = {backend.id: backend.name for backend in config.backends}
    found = [
        Unpriced(
            model=model.name,
            backend=names[target.backend_id],
            upstream_model=target.upstream_model,
            currency=currency,
            lacks=lacks,
            tenants=len(having),
            tier=tier.value,
        )
        for model in config.models
        for target in model.targets
        if target.backend_id in names
        for tier in _tiers(config.prices, model, target)
        for (currency, lacks), having in _lacking(book, config.tenants, model, target, at_us, tier)
    ]
    return tuple(found)


def _tiers(priced: Iterable[Price], model: Model, target: Target) -> list[ServiceTier]:
    """The standard tier, and those that the list has any price for; where it has none at all, those
    that the backend's cost has.
    """
    place = target.backend_id, target.upstream_model
    listed, cost = set(), set()
    for price in priced:
        if price.model == model.name and price.tenant_id is None:
            listed.add(price.service_tier)
        elif (price.backend_id, price.upstream_model) == place:
            cost.add(price.service_tier)
    named = listed or cost
    return [tier for tier in ServiceTier if tier is ServiceTier.STANDARD or tier in named]


def _lacking(
    book: PriceBook,
    tenants: Iterable[Tenant],
    model: Model,
    target: Target,
    at_us: int,
    tier: ServiceTier,
) -> Iterator[tuple[tuple[str, str], list[str]]]:
    """Tenants without a price, by currency and what is missing."""
    having: dict[tuple[str, str], list[str]] = {}
    with_output = not set(model.capabilities) <= _WITHOUT_OUTPUT
    for tenant in tenants:
        card = _card(book, tenant, model, target, at_us, tier)
        if card is None or not can_price(card, with_output):
            lacks = "input" if card is None else "output"
            having.setdefault((tenant.currency, lacks), []).append(tenant.id)
    yield from having.items()


def _card(
    book: PriceBook, tenant: Tenant, model: Model, target: Target, at_us: int, tier: ServiceTier
) -> RateCard | None:
    """What a charge would follow from: the model's price, else the backend's."""
    currency = tenant.currency
    charge = book.charge_card(tenant.id, model.name, at_us, currency, tier)
    if charge is not None or book.charge_card(tenant.id, model.name, at_us, currency) is not None:
        return charge
    return book.cost_card(target.backend_id, target.upstream_model, at_us, currency, tier)
