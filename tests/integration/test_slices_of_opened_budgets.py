"""A budget that is made while a sliced stream runs pays for no more of it than it has."""

import asyncio
import json
from pathlib import Path
from typing import Any

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


def test_a_stream_that_a_new_budget_cannot_pay_ends_where_that_is_used_up(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            # No charge for input; an output token costs 0.001.
            world = await furnish(house, {"base_url": backend.base_url}, charge=("0", "1000"))
            await house.policy(
                name="s",
                scope={"tenant": world.tenant["id"]},
                budget={"hold": "sliced", "slice": 32},
            )
            await house.make("budgets", scope={"key": world.key["id"]}, amount="0.9", period="day")
            await house.in_force()
            backend.script = Script(tokens=900, chunk_delay_ms=3)
            begun = asyncio.Event()
            stream = asyncio.create_task(_read(house, world, begun))
            await begun.wait()

            scope = {"team": world.team["id"]}
            budget = await house.make("budgets", scope=scope, amount="0.3", period="day")
            await house.in_force()
            events = await stream
            await house.settled()

            (last,) = [one for one in events if "meterhouse" in one]
            assert last["meterhouse"]["code"] == "insufficient_quota"
            assert "while the answer came" in last["meterhouse"]["message"]
            assert "length" in [c["finish_reason"] for one in events for c in one["choices"]]
            shown = await house.look(f"budgets/{budget['id']}")
            assert (shown["spent"], shown["held"], shown["remaining"]) == ("0.3", "0", "0")

    run(scenario())


async def _read(house: House, world: World, begun: asyncio.Event) -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {world.secret}"}
    path, events = "/v1/chat/completions", []
    async with house.client.stream("POST", path, json=BODY, headers=headers) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                events.append(json.loads(line.removeprefix("data: ")))
                begun.set()
    return events
