"""`cost.max_per_team_hour`: what a team spends in an hour of the clock, exact over all workers."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from billing.periods import hour
from gateway import clock
from gateway.jobs import open_accounts, rebuild_counters
from gateway.stores.recount import recount
from gateway.wiring.jobs import open_jobs
from tests.house import House, World, furnish, open_house
from tests.integration.test_budget_races import ask
from tests.integration.test_budgets import NANOS, Watch
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend
from tests.workers import another_worker

HELLO = [{"role": "user", "content": "hello there"}]
TURNING_US = 40_000_000


async def a_world(house: House, backend: ScriptedBackend) -> World:
    """No charge for input; an output token costs 0.001. Begins with the better part of a minute of
    the hour to go.
    """
    left_us = hour(clock.now_us()).end_us - clock.now_us()
    if left_us < TURNING_US:
        await asyncio.sleep(left_us / 10**6)
    backend.script = Script(tokens=100)
    return await furnish(house, {"base_url": backend.base_url}, charge=("0", "1000"))


async def bounded(house: House, scope: dict[str, str], most: str, **sections: Any) -> str:
    fields = {"name": "burn", "scope": scope, "cost": {"max_per_team_hour": most}}
    made = await house.policy(**fields | sections)
    await house.in_force()
    return str(made["id"])


async def told(house: House, secret: str, **body: Any) -> Any:
    asked = {"model": "chat", "messages": HELLO, "max_tokens": 100} | body
    answer = await house.ask(secret, **asked)
    await house.settled()
    return answer


def test_over_two_workers_a_team_never_holds_and_spends_more_than_its_hour_allows(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            backend = await stack.enter_async_context(ScriptedBackend())
            house = await stack.enter_async_context(open_house(tmp_path, store_url))
            world = await a_world(house, backend)
            policy_id = await bounded(
                house, {"tenant": world.tenant["id"]}, "0.7", budget={"clamp": "off"}
            )
            other = await stack.enter_async_context(another_worker(house, 1))
            account = rf"{policy_id}\.\d+\.{world.team['id']}"
            watch = await stack.enter_async_context(Watch(store_url, account))
            for places in (7, 6, 5):  # one of those served is kept, each time
                backend.answering.clear()
                backend.book.clear()
                refusing = Script(tokens=1, usage="zero", body='{"error": "no"}', status=400)
                backend.script = refusing
                clients = [house.client, other.client] * 5
                asking = [ask(client, world.secret, 100) for client in clients[:9]]
                while len(backend.book) + sum(one.done() for one in asking) < 9:
                    await asyncio.sleep(0.005)
                backend.answering.set()
                answers = Counter(one.status_code for one in await asyncio.gather(*asking))
                assert answers == {400: places, 429: 9 - places}
                await watch.caught_up()
                assert watch.peak == 7 * NANOS // 10
                while watch.balance["held"]:
                    await asyncio.sleep(0.005)
                backend.script = Script(tokens=100)
                assert (await told(house, world.secret)).status_code == 200
            refused = await told(house, world.secret, max_tokens=500)
            assert refused.status_code == 429
            error = refused.json()["error"]
            assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")
            assert "policy burn lets team platform spend 0.7 USD an hour" in error["message"]
            assert "wait until 20" in error["message"]
            assert 0 < int(refused.headers["retry-after"]) <= 3600
            never = await told(house, world.secret, max_tokens=900)
            assert "never fits into an hour" in never.json()["error"]["message"]
            assert "retry-after" not in never.headers

    run(scenario())


def test_a_ceiling_begins_with_what_the_team_has_spent_whoever_of_it_did(
    tmp_path: Path, store_url: str, database_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, DATABASE_URL=database_url) as house,
        ):
            world = await a_world(house, backend)
            colleague = await house.make("keys", team_id=world.team["id"], name="colleague")
            await house.in_force()
            await told(house, world.secret)  # of a team within
            await told(house, colleague["secret"])

            await bounded(house, {"key": colleague["id"]}, "0.35")

            assert (await told(house, colleague["secret"])).status_code == 200
            assert (await told(house, world.secret)).status_code == 200  # its policy says nothing
            clamped = await told(house, world.secret, max_tokens=40)
            assert clamped.status_code == 200
            assert (await told(house, colleague["secret"])).status_code == 429
            other = await house.make("teams", tenant_id=world.tenant["id"], name="other")
            elsewhere = await house.make("keys", team_id=other["id"], name="elsewhere")
            await house.in_force()
            assert (await told(house, elsewhere["secret"])).status_code == 200

    run(scenario())


def test_of_two_ceilings_on_a_team_and_the_one_around_it_each_bounds_its_own(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await a_world(house, backend)
            sibling = await house.make("keys", team_id=world.team["id"], name="sibling")
            whole = {"budget": {"clamp": "off"}}
            await bounded(house, {"team": world.team["id"]}, "0.3", **whole)
            await bounded(house, {"team": world.squad["id"]}, "0.1", **whole)

            assert (await told(house, world.secret)).status_code == 200
            inner = await told(house, world.secret)
            assert "team search" in inner.json()["error"]["message"]
            for status in (200, 200, 429):
                assert (await told(house, sibling["secret"])).status_code == status
            explained = await house.admin.post(
                "/policies/explain", json={"key_id": world.key["id"], "model": "chat"}
            )
            told_of = explained.json()["policy"]["max_per_team_hour"]["value"]
            assert [one["most"] for one in told_of] == ["0.3", "0.1"]

    run(scenario())


@pytest.mark.parametrize("lost", [False, True])
def test_what_hours_count_is_what_the_ledger_has(
    tmp_path: Path, store_url: str, lost: bool
) -> None:
    """Counted anew, and after the store has lost it all (L7)."""

    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await a_world(house, backend)
            await bounded(house, {"tenant": world.tenant["id"]}, "0.25", budget={"clamp": "off"})
            for _ in range(2):
                assert (await told(house, world.secret)).status_code == 200
            async with open_jobs(house.settings, "jobs-1") as deps:
                found = open_accounts.in_force(deps.engine, clock.now_us())["s00"]
                mine = [one for one in found if one.scope_id == world.team["id"]]
                assert len(mine) >= 1
                if lost:
                    await deps.client.flushall()
                    await rebuild_counters.run(deps, asyncio.Event())
                wrong = await recount(deps.engine, deps.holds.channels, "s00", mine)
                assert wrong == ()
                for one in mine:
                    shown = await deps.client.hget(one.key, "posted")
                    if one.window.start_us <= clock.now_us() < one.window.end_us:
                        assert int(shown) == 2 * NANOS // 10
                    else:
                        assert int(shown or 0) == 0
            while (answer := await told(house, world.secret)).status_code == 503:
                await asyncio.sleep(0.05)
            assert answer.status_code == 429

    run(scenario())
