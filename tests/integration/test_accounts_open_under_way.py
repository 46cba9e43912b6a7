"""A budget that is made, or counts by other windows, while requests are in flight counts those."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.holding import TAG, open_reader
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

BODY: dict[str, Any] = {
    "model": "chat",
    "messages": [{"role": "user", "content": "hello there"}],
    "max_tokens": 900,
    "stream": True,
}
Edit = Callable[[House, World, dict[str, Any]], Awaitable[str]]


async def _another_period(house: House, world: World, budget: dict[str, Any]) -> str:
    fields = {"scope": {"key": world.key["id"]}, "amount": "0.9", "period": "week"}
    answer = await house.admin.put(f"/budgets/{budget['id']}", json=fields)
    assert answer.status_code == 200, answer.text
    return str(budget["id"])


async def _made_again(house: House, world: World, budget: dict[str, Any]) -> str:
    gone = await house.admin.delete(f"/budgets/{budget['id']}")
    assert gone.status_code == 204, gone.text
    fields = {"scope": {"key": world.key["id"]}, "amount": "0.9", "period": "day"}
    return str((await house.make("budgets", **fields))["id"])


async def _other_days(house: House, world: World, budget: dict[str, Any]) -> str:
    fields = {"name": "acme", "currency": "USD", "timezone": "America/New_York"}
    answer = await house.admin.put(f"/tenants/{world.tenant['id']}", json=fields)
    assert answer.status_code == 200, answer.text
    return str(budget["id"])


async def _one_more(house: House, world: World, budget: dict[str, Any]) -> str:
    """A budget of the team, above the key's."""
    del budget
    fields = {"scope": {"team": world.team["id"]}, "amount": "0.9", "period": "day"}
    return str((await house.make("budgets", **fields))["id"])


@pytest.mark.parametrize("edit", [_another_period, _made_again, _other_days, _one_more])
def test_what_is_in_flight_is_held_on_a_budget_that_is_opened_and_settles_on_it(
    tmp_path: Path, store_url: str, edit: Edit
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            # No charge for input; an output token costs 0.001.
            world = await furnish(house, {"base_url": backend.base_url}, charge=("0", "1000"))
            scope = {"key": world.key["id"]}
            budget = await house.make("budgets", scope=scope, amount="0.9", period="day")
            await house.in_force()
            backend.script = Script(tokens=600, chunk_delay_ms=3)
            begun = asyncio.Event()
            stream = asyncio.create_task(_read(house, world, begun))
            await begun.wait()

            budget_id = await edit(house, world, budget)
            await house.in_force()

            shown = await house.look(f"budgets/{budget_id}")
            assert (shown["spent"], shown["held"], shown["remaining"]) == ("0", "0.9", "0")
            assert (await house.ask(world.secret, **BODY | {"stream": False})).status_code == 429
            assert not stream.done()
            assert await stream == 200
            await house.settled()
            shown = await house.look(f"budgets/{budget_id}")
            assert (shown["spent"], shown["held"], shown["remaining"]) == ("0.6", "0", "0.3")
            async with open_reader(store_url) as reader:
                assert await reader.zcard(f"mh:{{{TAG}}}:holds") == 0

    run(scenario())


async def _read(house: House, world: World, begun: asyncio.Event) -> int:
    headers = {"authorization": f"Bearer {world.secret}"}
    path = "/v1/chat/completions"
    async with house.client.stream("POST", path, json=BODY, headers=headers) as answer:
        async for _ in answer.aiter_text():
            begun.set()
    return answer.status_code
