"""What operators are shown of a budget adds up, what workers have leased included (L1)."""

from decimal import Decimal
from pathlib import Path

from tests.integration.test_leases import lent, none_leased
from tests.integration.test_outage import COST, scene
from tests.running import run


def test_what_is_leased_is_shown_and_the_figures_of_a_budget_add_up(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            budget = await it.budget("bounded", "4")
            assert {a.status_code for a in [await it.ask() for _ in range(4)]} == {200}
            await lent(it)
            await it.house.settled()
            shown = await it.house.look(f"budgets/{budget}")
            figures = [Decimal(shown[name]) for name in ("spent", "held", "leased", "remaining")]
            assert figures[:2] == [Decimal("0.4"), 0]
            assert COST <= figures[2] * 10**9 <= 9 * COST
            assert sum(figures) == 4
            await none_leased(it, store_url)
            shown = await it.house.look(f"budgets/{budget}")
            assert (shown["leased"], shown["remaining"]) == ("0", "3.6")

    run(scenario())
