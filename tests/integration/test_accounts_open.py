"""A budget or limit begins with what was spent before it: made again, of another period, or of
days that begin elsewhere. From undrained journal, ledger and both, on both databases.
"""

import asyncio
from pathlib import Path
from typing import Any

from gateway.jobs import drain_journal, open_accounts
from gateway.wiring.jobs import open_jobs
from tests.holding import TAG, open_reader
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]


async def _world(house: House, backend: ScriptedBackend) -> World:
    """No charge for input; an output token costs 0.001."""
    backend.script = Script(tokens=100)
    return await furnish(house, {"base_url": backend.base_url}, charge=("0", "1000"))


async def _ask(house: House, world: World) -> Any:
    answer = await house.ask(world.secret, model="chat", messages=HELLO, max_tokens=100)
    await house.settled()
    return answer


async def _drained(house: House) -> None:
    """Everything settled so far is in the ledger."""
    stopping = asyncio.Event()
    stopping.set()
    async with open_jobs(house.settings, "jobs-1") as deps:
        await drain_journal.run(deps, stopping)


async def _looked(house: House) -> None:
    """The jobs have looked at every account."""
    async with open_jobs(house.settings, "jobs-2") as deps:
        await open_accounts.run(deps, asyncio.Event())


def test_a_budget_made_again_remembers_what_was_spent(
    tmp_path: Path, store_url: str, database_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, DATABASE_URL=database_url) as house,
        ):
            world = await _world(house, backend)
            fields = {"scope": {"team": world.team["id"]}, "amount": "0.35", "period": "month"}
            first = await house.make("budgets", **fields)
            await house.in_force()
            await _ask(house, world)
            await _drained(house)
            await _ask(house, world)  # this one waits in the journal
            await house.admin.delete(f"/budgets/{first['id']}")
            await house.in_force()
            await _ask(house, world)  # under no budget at all

            again = await house.make("budgets", **fields)
            await house.in_force()

            assert (again["spent"], again["held"]) == ("0.3", "0")
            assert (await _ask(house, world)).status_code == 429

    run(scenario())


def test_a_period_that_was_left_and_taken_again_remembers_what_was_spent_meanwhile(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await _world(house, backend)
            fields = {"scope": {"key": world.key["id"]}, "amount": "9", "period": "month"}
            budget = await house.make("budgets", **fields)
            path = f"/budgets/{budget['id']}"
            spent = []
            for period in ("total", "month", "quarter", "month"):
                await house.in_force()
                await _ask(house, world)
                await house.admin.put(path, json=fields | {"period": period})
                spent.append((await house.look(path.strip("/")))["spent"])
            await house.in_force()
            await _ask(house, world)

            assert spent == ["0.1", "0.2", "0.3", "0.4"]
            assert (await house.look(path.strip("/")))["spent"] == "0.5"

    run(scenario())


def test_a_limit_made_again_remembers_the_tokens_of_the_day(
    tmp_path: Path, store_url: str, database_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, DATABASE_URL=database_url) as house,
        ):
            world = await _world(house, backend)
            answer = await _ask(house, world)
            used = answer.json()["usage"]["total_tokens"]
            await _drained(house)
            answer = await _ask(house, world)
            used += answer.json()["usage"]["total_tokens"]

            fields = {"scope": {"key": world.key["id"]}, "tokens_per_day": used + 50}
            limit = await house.make("limits", **fields)
            await house.in_force()
            assert (await _ask(house, world)).status_code == 429
            without = {"scope": fields["scope"], "requests_per_minute": 1_000}
            await house.admin.put(f"/limits/{limit['id']}", json=without)
            await house.in_force()
            used += (await _ask(house, world)).json()["usage"]["total_tokens"]
            await house.admin.put(f"/limits/{limit['id']}", json=fields)
            await house.in_force()

            seen = await house.client.get(
                "/v1/usage", headers={"authorization": f"Bearer {world.secret}"}
            )
            [day] = [one for one in seen.json()["limits"] if one["kind"] == "tokens_per_day"]
            assert (day["used"], day["held"]) == (used, 0)

    run(scenario())


def test_another_time_zone_counts_its_own_days(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await _world(house, backend)
            scope = {"tenant": world.tenant["id"]}
            budget = await house.make("budgets", scope=scope, amount="9", period="total")
            await house.in_force()
            await _ask(house, world)
            moved = {"name": "acme", "currency": "USD", "timezone": "Pacific/Auckland"}
            answer = await house.admin.put(f"/tenants/{world.tenant['id']}", json=moved)
            assert answer.status_code == 200, answer.text
            await house.in_force()
            await _ask(house, world)

            assert (await house.look(f"budgets/{budget['id']}"))["spent"] == "0.2"

    run(scenario())


def test_a_request_that_began_before_the_budget_is_counted_when_it_has_ended(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await _world(house, backend)
            backend.answering.clear()
            asking = asyncio.create_task(_ask(house, world))
            while not backend.book:
                await asyncio.sleep(0.005)
            scope = {"tenant": world.tenant["id"]}
            budget = await house.make("budgets", scope=scope, amount="9", period="day")
            backend.answering.set()
            assert (await asking).status_code == 200

            assert (await house.look(f"budgets/{budget['id']}"))["spent"] == "0.1"
            await _looked(house)
            assert (await house.look(f"budgets/{budget['id']}"))["spent"] == "0.1"
            await _drained(house)
            await _looked(house)
            assert (await house.look(f"budgets/{budget['id']}"))["spent"] == "0.1"

    run(scenario())


def test_an_account_that_was_taken_out_of_the_store_is_waited_for_and_opened_by_the_jobs(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url) as house,
            open_reader(store_url) as reader,
        ):
            world = await _world(house, backend)
            scope = {"tenant": world.tenant["id"]}
            budget = await house.make("budgets", scope=scope, amount="9", period="total")
            await house.in_force()
            await _ask(house, world)
            [key] = await reader.keys(f"mh:{{{TAG}}}:acct:{budget['id']}:*")
            await reader.delete(key)
            refused = await _ask(house, world)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "quota_unavailable"

            asking = asyncio.create_task(_ask(house, world))
            async with open_jobs(house.settings, "jobs-1") as deps:
                await open_accounts.run(deps, asyncio.Event())
            assert (await asking).status_code == 200
            assert (await house.look(f"budgets/{budget['id']}"))["spent"] == "0.2"

    run(scenario())
