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
from policies.candidates import Candidate
from policies.panel import Panel

_MOST_PANELS: Final = 256  # of one route, remembered at a time: a bound, there are a few

Place = tuple[str, str]  # backend id, upstream model
Bands = Mapping[Place, Sequence[Band]]


class Sizes:
    """Of one route, where a price on it has more than one band."""

    def __init__(self, charges: Bands, costs: Bands) -> None:
        self._charges, self._costs = charges, costs
        self._charge_edges = _edges(charges.values())
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
            cards = reachable(charges, most)
            candidate = replace(
                candidate,
                charge_input_picos=max(map(worst_input_picos, cards)),
                charge_output_picos=max(map(output_picos, cards)),
            )
        if costs:
            card = card_for(costs, likely)
            candidate = replace(
                candidate,
                cost_input_picos=worst_input_picos(card),
                cost_output_picos=output_picos(card),
            )
        return candidate


def dearest(bands: Sequence[Band], worst: Meters) -> RateCard:
    """Of the cards that a usage of at most `worst` may land on, the one on which it costs most."""
    return max(reachable(bands, worst.all_input), key=lambda card: rate(worst, card))


def _edges(all_bands: Iterable[Sequence[Band]]) -> list[int]:
    """The sizes beyond which another card may hold."""
    return sorted({band.above_tokens for bands in all_bands for band in bands[1:]})
