"""Random topologies, policies, failures, retries, hedges and clients that leave, in a whole
gateway: the books of the backends have no byte that the documents forbid.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.residency.streets import streets
from tests.residency.towns import town
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
    assert (
        min(seen[name] for name in ("served", "to a stand-in", "asked of several", "forbidden"))
        > towns / 20
    )
    figure(f"{towns} towns, no byte to a forbidden backend: {dict(seen)}")


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
