"""A request that names a service tier: admitted at that tier's prices, billed at those of the tier
that was served.

`auto` may become any tier that has a price: it is held at the dearest of them. What nobody asked
for is billed all the same where the backend says that it served it; of a dearer tier the bill may
then exceed the hold, as a visible overrun.
"""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from billing.meters import Meters
from billing.money import counter_units
from billing.prices import Band, can_price, card_for
from billing.rating import rate
from billing.service_tiers import AUTO, ServiceTier, billed_tier
from billing.usage import UsageEvent
from gateway.dataplane.bands import at_most, dearest, sizes_of
from gateway.dataplane.envelope import EMBEDDINGS, Fields
from gateway.dataplane.rewrite import SERVICE_TIERS
from gateway.dataplane.snapshot import Route
from gateway.dataplane.ways import STANDARD, Priced, Way, at_prices, priced_for
from policies.decision import Deny, DenyCode
from policies.panel import Panel

# What a backend says of nearly every answer: nothing that changes a bill.
PLAIN: Final = frozenset((None, "default", "standard", "on_demand"))


def asked_for(route: Route, fields: Fields, operation: str) -> Route | Deny:
    """The route at the prices of the tier that the request names. Deny: nothing is priced there."""
    asked = SERVICE_TIERS[bytes(fields["service_tier"])]
    if asked is None or asked == STANDARD or (asked == AUTO and route.tiered is None):
        return route
    if asked != AUTO:
        priced = _priced(route, with_output=operation != EMBEDDINGS)
        if asked not in priced:
            return _unpriced(route.model.name, asked, priced)
    return at_tier(route, asked)


def at_tier(route: Route, asked: str) -> Route:
    """Made once for each tier of a route, and kept with it."""
    known = route.tiered
    if known is None:
        return route
    found = known.get(asked)
    if found is None:
        auto = asked == AUTO
        make = _open if auto else _fixed
        ways = {place: make(way, asked) for place, way in route.ways.items()}
        panel = Panel(route.policy, tuple(way.candidate for way in ways.values()))
        sizes = sizes_of(ways.values(), any_tier=auto)
        found = known[asked] = replace(
            route,
            ways=ways,
            panel=panel,
            sizes=sizes,
            branches=route.branches.for_another() if route.branches is not None else None,
            tier=asked,
            tiered=None,
        )
    return found


def on_tier(rated: UsageEvent, way: Way, asked: str, told: str | None) -> UsageEvent:
    """The event at the prices of the tier that was served, and what was asked for and told."""
    if told is not None and not (told.isascii() and told.isprintable()):
        told = None
    usage, asked = rated.usage, asked or STANDARD.value
    charges = {tier: of.charges for tier, of in way.tiers.items()}
    costs = {tier: of.costs for tier, of in way.tiers.items()}
    tier = billed_tier(asked, told, _able(charges, usage))
    rated = replace(rated, service_tier=tier.value, tier_asked=asked, tier_served=told)
    if charges.get(tier):
        card = card_for(charges[tier], usage.all_input)
        charge = rate(usage, card) if rated.winner else 0
        units = counter_units(charge, rated.currency)
        rated = replace(rated, charge_card=card, charge_picos=charge, counter_nanos=units)
    known = _able(costs, usage)
    tier = billed_tier(asked, told, known)
    if tier in known:
        card = card_for(costs[tier], usage.all_input)
        rated = replace(rated, cost_card=card, cost_picos=rate(usage, card))
    return rated


def expected_in(expected: UsageEvent, way: Way, asked: str, worst: Meters) -> UsageEvent:
    """What a dead worker's hold is billed from: the tier asked for, of `auto` the dearest."""
    expected = replace(
        expected, service_tier=STANDARD.value if asked == AUTO else asked, tier_asked=asked
    )
    able = _able({tier: of.charges for tier, of in way.tiers.items()}, worst)
    if asked != AUTO or not able:
        return expected
    cards = {tier: dearest(way.tiers[tier].charges, worst) for tier in sorted(able)}
    tier = max(cards, key=lambda each: rate(worst, cards[each]))
    costs = way.tiers[tier].costs
    return replace(
        expected,
        service_tier=tier.value,
        charge_card=cards[tier],
        cost_card=dearest(costs, worst) if costs else None,
    )


def _able(prices: Mapping[ServiceTier, tuple[Band, ...]], usage: Meters) -> set[ServiceTier]:
    """The tiers that have a price for what was used."""
    answers = bool(usage.output)
    return {tier for tier, bands in prices.items() if bands and can_price(bands[0].card, answers)}


def _fixed(way: Way, asked: str) -> Way:
    return at_prices(way, way.tiers.get(ServiceTier(asked), Priced()))


def _open(way: Way, _asked: str) -> Way:
    """At the standard tier's prices, and as dear as the dearest that it may become."""
    if way.charge is None:
        return way
    answers = way.candidate.charge_output_picos is not None
    cards = [of.charges[0].card for of in way.tiers.values() if of.charges]
    cards = [card for card in cards if can_price(card, answers)]
    return replace(way, candidate=at_most(way.candidate, cards)) if cards else way


def _priced(route: Route, *, with_output: bool) -> list[ServiceTier]:
    """The tiers in which a request can be charged at any place."""
    ways = route.ways.values()
    found = {tier for way in ways for tier in priced_for(way.tiers, with_output=with_output)}
    if any(way.charge is not None and can_price(way.charge, with_output) for way in ways):
        found.add(STANDARD)
    return [tier for tier in ServiceTier if tier in found]


def _unpriced(model: str, asked: str, priced: list[ServiceTier]) -> Deny:
    known = " and ".join(priced) or "no tier at all"
    return Deny(
        DenyCode.UNPRICED_MODEL,
        f"service_tier: {asked} has no price for model {model!r}, which is priced in: {known};"
        " leave the field out, ask for a tier that has a price, or have an administrator add"
        f" prices with service_tier {asked}",
        param="service_tier",
    )
