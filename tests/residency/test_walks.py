"""Ten thousand random topologies, policies, failures, retries, hedges and shadows, by the policies
library alone: no byte to a backend that the documents forbid; and wrong steps are found.
"""

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from tests.residency.law import offences
from tests.residency.towns import Town, town
from tests.residency.walk import PLANTS, Parts, Walk

TOWNS = 10_000
GATEWAYS = (("DE",), ("DE",), ("DE",), ("DE", "US"), ("US",), ())


def the_town(seed: int) -> Town:
    return town(seed, GATEWAYS[seed % len(GATEWAYS)])


def offence(seed: int, parts: Parts, seen: Counter[str]) -> str | None:
    """The first that this town's requests commit."""
    place, dice = the_town(seed), Random(seed)
    for ask in place.asks:
        walk = Walk(place, ask, dice, parts)
        walk.go()
        seen["requests"] += 1
        seen["attempts"] += len(walk.sent)
        seen["retries"] += walk.retries
        seen["hedges"] += walk.hedges
        seen["shadows"] += walk.shadows
        seen["stand-ins"] += any(model != ask.model for model, _ in walk.sent)
        seen[walk.refusal or "planned"] += 1
        for model, site in walk.sent:
            if found := offences(place, ask, model, site):
                return f"town {seed}, {ask}: {site} although {found}"
        seen["forbidden"] += sum(
            bool(offences(place, ask, ask.model, site)) for site in place.models[ask.model]
        )
    return None


def test_no_byte_of_ten_thousand_towns_goes_where_it_may_not(
    figure: Callable[[str], None],
) -> None:
    seen: Counter[str] = Counter()
    for seed in range(TOWNS):
        assert (found := offence(seed, Parts(), seen)) is None, found
    assert (
        min(seen[name] for name in ("retries", "hedges", "stand-ins", "shadows", "forbidden")) > 500
    )
    figure(f"{TOWNS} towns, no byte to a forbidden backend: {dict(seen)}")


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_wrong_step_is_found(plant: Callable[[], Parts], figure: Callable[[str], None]) -> None:
    parts, seen = plant(), Counter[str]()
    found = next((seed for seed in range(TOWNS) if offence(seed, parts, seen)), None)
    assert found is not None
    figure(f"{plant.__name__}: found in town {found}")
