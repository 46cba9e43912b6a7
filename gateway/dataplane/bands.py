"""Prices that depend on the size of a prompt: candidates as they look to a request of a size.

How large a prompt is nobody knows before its backend has counted it. So what may be charged is the
dearest of all cards that the bound reaches, and what it is expected to cost us is the card of the
estimate. What is charged in the end is the card of what was counted.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from billing.meters import Meters
from billing.prices import (
    Band,
    RateCard,
    card_for,
    output_picos,
    reachable,
    worst_input_picos,
)
from billing.rating import rate
from gateway.dataplane.ways import Way
from policies.candidates import Candidate
from policies.panel import Panel

_MOST_PANELS: Final = 256  # of one route, remembered at a time: a bound, there are a few

Place = tuple[str, str]  # backend id, upstream model
Bands = Mapping[Place, Sequence[Band]]
# Of what may be charged there is more than one where the backend chooses the service tier.
Groups = Mapping[Place, Sequence[Sequence[Band]]]


class Sizes:
    """Of one route, where a price on it has more than one band."""

    def __init__(self, charges: Groups, costs: Bands) -> None:
        self._charges, self._costs = charges, costs
        self._charge_edges = _edges(bands for groups in charges.values() for bands in groups)
        self._cost_edges = _edges(costs.values())
        self._known: dict[tuple[Panel, int, int], Panel] = {}

    def panel(self, panel: Panel, bound: int, estimate: int) -> Panel:
        """The panel for a prompt of at most `bound` tokens and about `estimate`. `panel` itself
        where nothing is different for it.
        """
        charge = bisect_left(self._charge_edges, bound)
        cost = bisect_left(self._cost_edges, estimate)
        if not charge and not cost:
            return panel
        known = self._known.get((panel, charge, cost))
        if known is None:
            most = self._charge_edges[charge - 1] + 1 if charge else 0
            likely = self._cost_edges[cost - 1] + 1 if cost else 0
            candidates = [self._sized(each, most, likely) for each in panel.candidates]
            known = Panel(panel.policy, candidates)
            if len(self._known) >= _MOST_PANELS:
                self._known.clear()
            self._known[panel, charge, cost] = known
        return known

    def _sized(self, candidate: Candidate, most: int, likely: int) -> Candidate:
        place = candidate.backend_id, candidate.upstream_model
        charges, costs = self._charges.get(place), self._costs.get(place)
        if charges:
            cards = [card for bands in charges for card in reachable(bands, most)]
            candidate = at_most(candidate, cards)
        if costs:
            card = card_for(costs, likely)
            candidate = replace(
                candidate,
                cost_input_picos=worst_input_picos(card),
                cost_output_picos=output_picos(card),
            )
        return candidate


def at_most(candidate: Candidate, cards: Sequence[RateCard]) -> Candidate:
    """As it looks to a request that may be charged by any of these cards."""
    answers = candidate.charge_output_picos is not None
    return replace(
        candidate,
        charge_input_picos=max(map(worst_input_picos, cards)),
        charge_output_picos=max(map(output_picos, cards)) if answers else None,
    )


def sizes_of(ways: Iterable[Way], *, any_tier: bool = False) -> Sizes | None:
    """None where no price on them depends on the size of a prompt."""
    charges: dict[Place, Sequence[Sequence[Band]]] = {}
    costs: dict[Place, Sequence[Band]] = {}
    for way in ways:
        place = way.candidate.backend_id, way.candidate.upstream_model
        groups = [way.charge_bands] if way.charge_bands else []
        if any_tier:
            groups = [each.charges for each in way.tiers.values() if each.charges]
        if any(len(bands) > 1 for bands in groups):
            charges[place] = groups
        if way.cost_bands:
            costs[place] = way.cost_bands
    return Sizes(charges, costs) if charges or costs else None


def dearest(bands: Sequence[Band], worst: Meters) -> RateCard:
    """Of the cards that a usage of at most `worst` may land on, the one on which it costs most."""
    return max(reachable(bands, worst.all_input), key=lambda card: rate(worst, card))


def _edges(all_bands: Iterable[Sequence[Band]]) -> list[int]:
    """The sizes beyond which another card may hold."""
    return sorted({band.above_tokens for bands in all_bands for band in bands[1:]})
