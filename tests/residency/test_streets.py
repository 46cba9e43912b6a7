"""Random topologies, policies, failures, retries, hedges, shadows and clients that leave, in a
whole gateway: the books of the backends have no byte that the documents forbid.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.residency.law import offences
from tests.residency.streets import streets
from tests.residency.towns import Town, town
from tests.residency.walk import Walk, careless_shadows
from tests.running import run

AT_A_TIME = 200  # towns in one configuration


@pytest.mark.parametrize("towns", [400, pytest.param(10_000, marks=pytest.mark.long)])
def test_the_books_of_the_backends_have_no_byte_that_may_not_be_there(
    tmp_path: Path, store_url: str, figure: Callable[[str], None], towns: int
) -> None:
    seen: Counter[str] = Counter()

    async def stand(gateway: tuple[str, ...], seeds: range) -> None:
        home = tmp_path / ("-".join(gateway) or "nowhere")
        async with streets(home, store_url, gateway) as here:
            for first in range(seeds.start, seeds.stop, AT_A_TIME):
                some = range(first, min(first + AT_A_TIME, seeds.stop))
                await here.visit([town(seed, gateway) for seed in some])
                assert here.offences == []
            seen.update(here.seen)

    async def scenario() -> None:
        most, few = towns * 8 // 10, towns // 10
        await stand(("DE",), range(most))
        await stand(("DE", "US"), range(most, most + few))
        await stand((), range(most + few, towns))

    run(scenario(), within_s=towns / 5)
    assert seen["internal_error"] == 0
    kinds = ("served", "to a stand-in", "asked of several", "forbidden")
    assert min(seen[name] for name in kinds) > towns / 20
    assert seen["shadows"] > towns / 40
    figure(f"{towns} towns, no byte to a forbidden backend: {dict(seen)}")


def test_a_shadow_that_asks_nobody_but_its_payer_is_found(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with streets(tmp_path, store_url, ("DE",)) as here:
            here.forget_the_shadowed()
            await here.visit(list(_where_it_matters(range(800))))
            assert here.offences
            assert all("-mirror" in each for each in here.offences)
            figure(f"{len(here.offences)} offences, such as {here.offences[0]}")

    run(scenario())


def _where_it_matters(seeds: range) -> Iterator[Town]:
    """Towns in which a shadow would go astray if its payer's policy were all that it is asked."""
    for seed in seeds:
        place, dice = town(seed, ("DE",)), Random(seed)
        for ask in place.asks:
            walk = Walk(place, ask, dice, careless_shadows())
            walk.go()
            if any(offences(place, ask, model, site) for model, site in walk.sent):
                yield place
                break


def test_a_retry_that_forgets_the_rules_is_found(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with streets(tmp_path, store_url, ("DE",)) as here:
            here.forget_the_rules()
            await here.visit([town(seed, ("DE",)) for seed in range(60)])
            assert here.offences
            figure(f"{len(here.offences)} offences in 60 towns, such as {here.offences[0]}")

    run(scenario())
