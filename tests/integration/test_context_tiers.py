"""A price that depends on the size of the prompt, from the quote to the settlement."""

import asyncio
from pathlib import Path
from typing import Any

from tests.house import House, World, furnish, open_house
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

SHORT = [{"role": "user", "content": "hello there"}]  # 6 tokens, as the backend counts
LONG = [{"role": "user", "content": "of the and to " * 100}]  # 404
EDGE = 300


async def _world(house: House, backend: ScriptedBackend) -> World:
    """3 and 15 a million up to 300 tokens of prompt, 6 and 30 above."""
    world = await furnish(house, {"base_url": backend.base_url})
    for meter, below, above in (("input", "3", "6"), ("output", "15", "30")):
        await house.make(
            "prices", book="charge", model="chat", meter=meter, amount_per_million=below,
            currency="USD", effective_from="2026-02-01T00:00:00Z",
            context_tiers=[{"above_tokens": EDGE, "amount_per_million": above}],
        )  # fmt: skip
    await house.in_force()
    return world


async def _asked(house: House, world: World, messages: list[dict[str, str]]) -> Any:
    answer = await house.ask(world.secret, model="chat", messages=messages, max_tokens=20)
    await house.settled()
    return answer


def test_a_request_is_charged_in_the_tier_of_what_was_counted(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await _world(house, backend)
            backend.script = Script(tokens=10)
            budget = await house.make(
                "budgets", scope={"team": world.team["id"]}, amount="1", period="month"
            )
            await house.in_force()

            for messages in (SHORT, LONG):
                assert (await _asked(house, world, messages)).status_code == 200

            spent = (await house.look(f"budgets/{budget['id']}"))["spent"]
            # 6 x 3 + 10 x 15, and 404 x 6 + 10 x 30, a million.
            assert spent == "0.002892"

    asyncio.run(scenario())


def test_a_budget_that_covers_only_the_lower_tier_refuses_what_may_be_in_the_upper(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await _world(house, backend)
            await house.make(
                "budgets", scope={"team": world.team["id"]}, amount="0.002", period="month"
            )
            await house.in_force()

            refused = await _asked(house, world, LONG)
            served = await _asked(house, world, SHORT)

            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "insufficient_quota"
            assert served.status_code == 200
            assert len(backend.book) == 1

    asyncio.run(scenario())


def test_the_explanation_judges_by_the_tier_of_the_size_asked_about(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await _world(house, backend)
            await house.policy(
                name="ceiling",
                scope={"tenant": world.tenant["id"]},
                cost={"max_input_per_million": "5"},
            )
            asked = {"key_id": world.key["id"], "model": "chat", "max_tokens": 5, "stream": False}

            decisions = [
                (await house.admin.post("/policies/explain", json=asked | {"input_tokens": size}))
                .json()["decision"]
                for size in (EDGE, EDGE + 1)
            ]  # fmt: skip

            assert decisions == ["serve", "refuse"]

    asyncio.run(scenario())
