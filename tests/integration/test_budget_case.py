"""Case 9 of the acceptance cases: two hundred at once on a budget for thirteen."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from tests.booked import ledger_rows
from tests.house import furnish, open_house
from tests.integration.test_budget_races import ask
from tests.integration.test_budgets import NANOS, Watch
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

MANY, PLACES = 200, 13  # 13 x 0.75 = 9.75; one more would be 10.50


def test_case_09_two_hundred_at_once_never_hold_more_than_the_budget_has(
    tmp_path: Path, store_url: str, database_url: str
) -> None:
    """Worst case 0.75 each: 1,500 tokens at 500.00 a million. In fact each generates 100: 0.05."""

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            backend = await stack.enter_async_context(ScriptedBackend())
            backend.script = Script(tokens=100)
            opened = open_house(tmp_path, store_url, DATABASE_URL=database_url)
            house = await stack.enter_async_context(opened)
            world = await furnish(house, {"base_url": backend.base_url}, charge=("0", "500"))
            tenant = {"tenant": world.tenant["id"]}
            budget = await house.make(
                "budgets", scope=tenant, amount="10", period="month", mode="hard", outage="strict"
            )
            await house.policy(name="whole", scope=tenant, budget={"clamp": "off"})
            await house.in_force()
            watch = await stack.enter_async_context(Watch(store_url, budget["id"]))
            backend.answering.clear()
            asking = [ask(house.client, world.secret, 1_500) for _ in range(MANY)]
            while len(backend.book) + sum(one.done() for one in asking) < MANY:
                await asyncio.sleep(0.005)
            during = await house.look(f"budgets/{budget['id']}")
            backend.answering.set()
            answers = Counter(one.status_code for one in await asyncio.gather(*asking))
            rows = await ledger_rows(house)
            await watch.caught_up()
            after = await house.look(f"budgets/{budget['id']}")

            assert answers == {200: PLACES, 429: MANY - PLACES}
            assert len(backend.book) == PLACES, "what is refused never leaves"
            assert (during["spent"], during["held"], during["remaining"]) == ("0", "9.75", "0.25")
            assert watch.peak == 975 * NANOS // 100
            assert (after["spent"], after["held"], after["remaining"]) == ("0.65", "0", "9.35")
            assert [row.charge_picos for row in rows] == [50_000_000_000] * PLACES

    run(scenario())
