"""A way to one candidate, and what it costs there: a team, and us, in each service tier."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec.structs import replace

from billing.markups import marked_up
from billing.prices import (
    Band,
    PriceBook,
    RateCard,
    can_price,
    output_picos,
    worst_input_picos,
)
from billing.rating import Tariff, tariff
from billing.service_tiers import ServiceTier
from billing.usage import UsageEvent
from gateway.backends.dialect import Dialect
from gateway.backends.endpoint import Endpoint, Timeouts
from gateway.stores.sql import rows
from policies.candidates import Candidate

STANDARD: Final = ServiceTier.STANDARD


class Priced(msgspec.Struct, frozen=True):
    """Prices of one tier at one place, by the size of the prompt; empty where there are none."""

    charges: tuple[Band, ...] = ()
    costs: tuple[Band, ...] = ()


Tiers = Mapping[ServiceTier, Priced]
ONLY_STANDARD: Final[Tiers] = MappingProxyType({})


class Way(msgspec.Struct, frozen=True):
    """All that is needed to go to one candidate and to price what it does."""

    candidate: Candidate
    backend: rows.Backend
    endpoint: Endpoint
    dialect: Dialect
    timeouts: Timeouts
    headers: list[tuple[bytes, bytes]]  # what the dialect needs on every call, credential included
    account: int  # equal where address and credential are: a limit of one is the other's too
    provider: str  # gen_ai.provider.name
    told_region: tuple[bytes, bytes]  # the header of an answer that says where it comes from
    expected: UsageEvent | None  # what its events have in common; None without any charge
    tiers: Tiers = ONLY_STANDARD  # prices of every tier, where there are other than standard ones
    charge: RateCard | None = None
    cost: RateCard | None = None
    charge_tariff: Tariff | None = None
    cost_tariff: Tariff | None = None
    charge_bands: tuple[Band, ...] = ()  # where the price depends on the size of the prompt
    cost_bands: tuple[Band, ...] = ()


def prices_of(
    book: PriceBook, tenant: rows.Tenant, model: rows.Model, target: rows.Target, now_us: int
) -> dict[ServiceTier, Priced]:
    """The standard tier's, and those of each tier that has any. A model that nobody set a charge
    for is charged what it costs, with its markup, in each tier whose cost is known; own hardware
    costs the same in all of them.
    """
    backend_id, upstream, currency = target.backend_id, target.upstream_model, tenant.currency
    costs = book.cost_bands(backend_id, upstream, now_us, currency)
    charges = book.charge_bands(tenant.id, model.name, now_us, currency)
    follows = not charges
    found = {STANDARD: Priced(_marked_up(costs, model.markup) if follows else charges, costs)}
    for tier in book.tiers:
        costs = book.cost_bands(backend_id, upstream, now_us, currency, tier)
        charges = book.charge_bands(tenant.id, model.name, now_us, currency, tier)
        if follows and not charges:
            charges = _marked_up(costs, model.markup)
        if charges or costs:
            box = costs or book.box_bands(backend_id, now_us, currency)
            found[tier] = Priced(charges, box)
    return found


def at_prices(way: Way, priced: Priced) -> Way:
    """The same way at these prices."""
    charges, costs = priced.charges, priced.costs
    charge, cost = (bands[0].card if bands else None for bands in (charges, costs))
    expected = way.expected
    if expected is not None and charge is not None:
        expected = replace(expected, charge_card=charge, cost_card=cost)
    return replace(
        way,
        candidate=replace(
            way.candidate,
            cost_input_picos=worst_input_picos(cost) if cost else None,
            cost_output_picos=output_picos(cost) if cost else None,
            charge_input_picos=worst_input_picos(charge) if charge else None,
            charge_output_picos=_of_answers(charge) if charge else None,
        ),
        expected=expected,
        charge=charge,
        cost=cost,
        charge_tariff=tariff(charge) if charge else None,
        cost_tariff=tariff(cost) if cost else None,
        charge_bands=charges if len(charges) > 1 else (),
        cost_bands=costs if len(costs) > 1 else (),
    )


def priced_for(tiers: Tiers, *, with_output: bool) -> frozenset[ServiceTier]:
    """The tiers in which a request can be charged."""
    return frozenset(
        tier
        for tier, of in tiers.items()
        if of.charges and can_price(of.charges[0].card, with_output)
    )


def _of_answers(charge: RateCard) -> int | None:
    return output_picos(charge) if can_price(charge, with_output=True) else None


def _marked_up(costs: tuple[Band, ...], markup: str) -> tuple[Band, ...]:
    return tuple(Band(each.above_tokens, marked_up(each.card, markup)) for each in costs)
