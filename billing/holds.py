"""The most a request can come to, in budget counter units, before it is sent anywhere."""

from collections.abc import Collection

import msgspec

from billing.money import counter_units
from billing.prices import RateCard, output_picos, worst_input_picos


class WorstCase(msgspec.Struct, frozen=True):
    """Counter units of the currency (nanos, or millionths where the unit is small)."""

    input_nanos: int  # the whole prompt at the dearest input price of the plan
    output_nanos_per_token: int

    def total(self, output_tokens: int) -> int:
        """The hold for this many output tokens, over all choices."""
        return self.input_nanos + output_tokens * self.output_nanos_per_token


def worst_case(input_bound: int, cards: Collection[RateCard], currency: str) -> WorstCase:
    """An upper bound over every card of the plan, for at most `input_bound` prompt tokens: the
    counter units of no charge on any of the cards exceed `total` of its output tokens, because both
    parts are rounded up on their own. ValueError for a plan without cards or in another currency.
    """
    if not cards:
        raise ValueError("a plan without prices has no worst case")
    if any(card.currency != currency for card in cards):
        found = ", ".join(sorted({card.currency for card in cards}))
        raise ValueError(f"prices in {found} cannot be held against budgets in {currency}")
    return worst_case_at(
        input_bound, max(map(worst_input_picos, cards)), max(map(output_picos, cards)), currency
    )


def worst_case_at(
    input_bound: int, input_picos: int, output_picos_per_token: int, currency: str
) -> WorstCase:
    """The same from the dearest prices per token themselves, for whoever has them at hand."""
    return WorstCase(
        counter_units(input_bound * input_picos, currency),
        counter_units(output_picos_per_token, currency),
    )
