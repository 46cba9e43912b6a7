"""A key that a breaker has blocked, as its caller sees it; from the loop to the lift."""

import asyncio
from pathlib import Path

from gateway.jobs import break_loops, drain_journal
from gateway.wiring.jobs import open_jobs
from tests.house import furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend


def test_a_loop_is_refused_visibly_until_somebody_lifts_it(tmp_path: Path, store_url: str) -> None:
    async def story() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url}, charge=("100", "100"))
            await house.make(
                "loop-breakers", scope={"tenant": world.tenant["id"]}, amount_per_minute="0.0001",
                least_requests=3, action="block", block_minutes=30,
            )  # fmt: skip
            await house.in_force()
            asked = {"model": "chat", "messages": [{"role": "user", "content": "again"}]}
            for _ in range(3):
                assert (await house.ask(world.secret, **asked)).status_code == 200
            await house.settled()
            async with open_jobs(house.settings, "test") as jobs:
                stopping = asyncio.Event()
                stopping.set()
                await drain_journal.drain(jobs, "s00", stopping)
                await break_loops.run(jobs, asyncio.Event())
            await house.in_force()

            refused = await house.ask(world.secret, **asked)
            (block,) = (await house.look("key-blocks", key_id=world.key["id"]))["items"]

            error = refused.json()["error"]
            assert (refused.status_code, error["code"]) == (403, "key_blocked")
            assert refused.headers["x-should-retry"] == "false"
            assert 1 <= int(refused.headers["retry-after"]) <= 1_800
            assert "stop what repeats them" in error["message"]
            assert block["id"] in error["message"]
            assert block["until"] in error["message"]
            assert block["state"] == "active"
            assert len(backend.book) == 3, "a refused request goes nowhere"

            narrow = await house.make(
                "admin-tokens", name="lead", role="team_admin", scope={"team": world.team["id"]}
            )
            lift = f"/key-blocks/{block['id']}/lift"
            bearer = {"authorization": f"Bearer {narrow['secret']}"}
            bound = await house.admin.post(lift, headers=bearer)
            assert bound.status_code == 403, "the tenant's breaker binds the team's administrator"

            lifted = await house.admin.post(lift)
            assert lifted.json()["state"] == "lifted"
            await house.in_force()
            assert (await house.ask(world.secret, **asked)).status_code == 200

    run(story())
