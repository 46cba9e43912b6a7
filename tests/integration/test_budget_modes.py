"""Budgets that are raised for a while, lowered under way, or only watch; on teams nested deep."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import clock
from tests.booked import ledger_rows
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

BODY: dict[str, Any] = {
    "model": "chat",
    "messages": [{"role": "user", "content": "hello there"}],
    "max_tokens": 100,
}
Story = Callable[[House, World, ScriptedBackend], Awaitable[None]]
PERIODS = ["day", "week", "month", "quarter", "total"]


@pytest.fixture
def played(tmp_path: Path, store_url: str) -> Callable[[Story], None]:
    """Plays a story where a request holds 0.01 and costs it; nothing is clamped."""

    def play(story: Story) -> None:
        async def whole() -> None:
            async with (
                ScriptedBackend() as backend,
                open_house(tmp_path, store_url, LEASE_SECONDS="0") as house,
            ):
                world = await furnish(house, {"base_url": backend.base_url}, charge=("0", "100"))
                await house.policy(
                    name="whole", scope={"tenant": world.tenant["id"]}, budget={"clamp": "off"}
                )
                backend.script = Script(tokens=100)
                await house.in_force()
                await story(house, world, backend)

        run(whole())

    return play


async def statuses(house: House, world: World, times: int) -> list[int]:
    found = [(await house.ask(world.secret, **BODY)).status_code for _ in range(times)]
    await house.settled()
    return found


async def held(house: House, world: World, backend: ScriptedBackend) -> "asyncio.Task[Any]":
    """A request that the backend has and does not answer."""
    before = len(backend.book)
    backend.answering.clear()
    asking = asyncio.create_task(house.ask(world.secret, **BODY))
    while len(backend.book) == before:
        await asyncio.sleep(0.005)
    return asking


async def held_under_a_grant(
    house: House, world: World, backend: ScriptedBackend, budget_id: str
) -> tuple["asyncio.Task[Any]", float]:
    """A request that a short grant lets in, and when the grant ends by the monotonic clock: of
    more seconds where the machine is too busy for few.
    """
    for seconds in (1.5, 6, 30):
        end_s = time.monotonic() + seconds
        await house.make(
            f"budgets/{budget_id}/grants", amount="0.01", until=in_s(seconds), reason="a demo"
        )
        await house.in_force()
        before = len(backend.book)
        backend.answering.clear()
        asking = asyncio.create_task(house.ask(world.secret, **BODY))
        while not asking.done() and len(backend.book) == before:
            await asyncio.sleep(0.005)
        if not asking.done():
            return asking, end_s
        assert (await asking).status_code == 429
    raise AssertionError("no grant was long enough")


def in_s(seconds: float) -> str:
    return clock.rfc3339(time.time_ns() // 1000 + int(seconds * 1e6))


@pytest.mark.parametrize("period", PERIODS)
def test_a_grant_raises_the_cap_of_its_budget_until_its_time(
    played: Callable[[Story], None], period: str
) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        team = {"team": world.team["id"]}
        budget = await house.make("budgets", scope=team, amount="0.02", period=period)
        await house.in_force()
        assert await statuses(house, world, 3) == [200, 200, 429]
        holding, end_s = await held_under_a_grant(house, world, backend, budget["id"])
        assert (await house.ask(world.secret, **BODY)).status_code == 429
        while time.monotonic() < end_s:
            await asyncio.sleep(0.02)
        # It is over, and what is held under it is not.
        shown = await house.look(f"budgets/{budget['id']}")
        assert (shown["granted"], shown["held"], shown["remaining"]) == ("0", "0.01", "-0.01")
        backend.answering.set()
        assert (await holding).status_code == 200
        assert await statuses(house, world, 1) == [429]
        shown = await house.look(f"budgets/{budget['id']}")
        assert (shown["spent"], shown["held"]) == ("0.03", "0")

    played(story)


def test_a_grant_that_is_taken_back_ends_no_hold(played: Callable[[Story], None]) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        team = {"team": world.team["id"]}
        budget = await house.make("budgets", scope=team, amount="0", period="month")
        grant = await house.make(
            "grants", budget_id=budget["id"], amount="0.02", until=in_s(60), reason="a demo"
        )
        await house.in_force()
        holding = await held(house, world, backend)
        assert (await house.admin.delete(f"/grants/{grant['id']}")).status_code == 204
        await house.in_force()
        assert (await house.ask(world.secret, **BODY)).status_code == 429
        backend.answering.set()
        assert (await holding).status_code == 200
        assert [row.charge_picos for row in await ledger_rows(house)] == [10**10]

    played(story)


def test_a_cap_lowered_below_what_is_held_ends_no_hold(played: Callable[[Story], None]) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        fields = {"scope": {"key": world.key["id"]}, "period": "total"}
        budget = await house.make("budgets", amount="1", **fields)
        await house.in_force()
        holding = await held(house, world, backend)
        path = f"/budgets/{budget['id']}"
        assert (await house.admin.put(path, json=fields | {"amount": "0.005"})).status_code == 200
        await house.in_force()
        assert (await house.ask(world.secret, **BODY)).status_code == 429
        backend.answering.set()
        assert (await holding).status_code == 200
        await house.settled()
        shown = await house.look(path.removeprefix("/"))
        assert (shown["spent"], shown["held"], shown["remaining"]) == ("0.01", "0", "-0.005")

    played(story)


def test_a_soft_budget_counts_everything_and_refuses_nothing(
    played: Callable[[Story], None],
) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        soft = await house.make(
            "budgets",
            scope={"key": world.key["id"]},
            amount="0.015",
            period="day",
            mode="soft",
        )
        await house.in_force()
        answer = await house.ask(world.secret, **BODY)
        assert "x-meterhouse-budget-remaining" not in answer.headers
        assert await statuses(house, world, 2) == [200, 200]
        shown = await house.look(f"budgets/{soft['id']}")
        assert (shown["spent"], shown["remaining"]) == ("0.03", "-0.015")
        headers = {"authorization": f"Bearer {world.secret}"}
        (own,) = (await house.client.get("/v1/usage", headers=headers)).json()["budgets"]
        assert (own["mode"], own["limit"]) == ("soft", "0.015")
        assert (own["spent"], own["remaining"]) == ("0.03", "-0.015")

    played(story)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [("hi", "0.0041 USD is left and room for 39 output tokens; lower max_tokens"),
     ("hi " * 2_000, "0.0041 USD is left and room for 0 output tokens; shorten the prompt")],
)  # fmt: skip
def test_a_refusal_says_what_would_fit(
    tmp_path: Path, store_url: str, prompt: str, says: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, LEASE_SECONDS="0") as house,
        ):
            world = await furnish(house, {"base_url": backend.base_url}, charge=("1", "100"))
            tenant = {"tenant": world.tenant["id"]}
            await house.policy(name="whole", scope=tenant, budget={"clamp": "off"})
            await house.make("budgets", scope=tenant, amount="0.0041", period="day")
            await house.in_force()

            body = BODY | {"messages": [{"role": "user", "content": prompt}]}
            answer = await house.ask(world.secret, **body)

            assert answer.status_code == 429
            assert says in answer.json()["error"]["message"]

    run(scenario())


def test_a_budget_that_is_spent_says_so_and_not_to_shorten_the_prompt(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, LEASE_SECONDS="0") as house,
        ):
            backend.script = Script(tokens=40)
            world = await furnish(house, {"base_url": backend.base_url}, charge=("0", "100"))
            scope = {"team": world.team["id"]}
            await house.policy(name="least", scope=scope, budget={"least_output": 40})
            await house.make("budgets", scope=scope, amount="0.004", period="day")
            await house.in_force()
            assert (await house.ask(world.secret, **BODY)).status_code == 200
            await house.settled()

            answer = await house.ask(world.secret, **BODY)
            headers = {"authorization": f"Bearer {world.secret}"}
            (budget,) = (await house.client.get("/v1/usage", headers=headers)).json()["budgets"]

            error = answer.json()["error"]["message"]
            assert (answer.status_code, "retry-after" in answer.headers) == (429, False)
            assert error.startswith("the day budget of team platform is spent; ask the budget's")
            assert error.endswith(":00:00Z")  # or wait until the next day begins
            assert (budget["of"], budget["spent"], budget["remaining"]) == (
                "team platform", "0.004", "0"
            )  # fmt: skip

    run(scenario())


def test_every_level_of_a_deep_tree_binds_in_every_period(played: Callable[[Story], None]) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        tenant_id, parent = world.tenant["id"], world.squad["id"]
        teams = [world.team["id"], parent]
        for depth in range(3, 9):  # as deep as teams nest
            made = await house.make(
                "teams", tenant_id=tenant_id, parent_id=parent, name=f"level {depth}"
            )
            parent = made["id"]
            teams.append(parent)
        key = await house.make("keys", team_id=parent, name="deep")
        scopes = [{"tenant": tenant_id}, *({"team": id_} for id_ in teams), {"key": key["id"]}]
        budgets = [
            await house.make("budgets", scope=scope, amount="1", period=PERIODS[n % 5])
            for n, scope in enumerate(scopes)
        ]
        await house.in_force()
        assert (await house.ask(key["secret"], **BODY)).status_code == 200
        await house.settled()
        shown = [await house.look(f"budgets/{each['id']}") for each in budgets]
        assert [(each["spent"], each["held"]) for each in shown] == [("0.01", "0")] * 10
        for budget, scope in zip(budgets, scopes, strict=True):
            path, period = f"/budgets/{budget['id']}", budget["period"]
            body = {"scope": scope, "period": period, "amount": "0.015"}
            assert (await house.admin.put(path, json=body)).status_code == 200
            await house.in_force()
            refused = await house.ask(key["secret"], **BODY)
            assert refused.status_code == 429
            assert f"the {period} budget" in refused.json()["error"]["message"]
            assert (await house.admin.put(path, json=body | {"amount": "1"})).status_code == 200
        await house.in_force()
        assert (await house.ask(key["secret"], **BODY)).status_code == 200

    played(story)


def test_what_may_cost_more_than_can_be_counted_is_refused(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, LEASE_SECONDS="0") as house,
        ):
            dear = ("0", "200000000")  # per million tokens
            world = await furnish(house, {"base_url": backend.base_url}, charge=dear)
            await house.in_force()

            answer = await house.ask(world.secret, **BODY)

            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "cost_ceiling_exceeded"
            assert not backend.book

    run(scenario())
