"""More clients than places, through several workers at once, in any order."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.booked import ledger_rows
from tests.house import furnish, open_house
from tests.integration.test_budgets import NANOS, Watch
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend
from tests.workers import another_worker

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello there"}]
ROUNDS = 20


def ask(client: httpx.AsyncClient, secret: str, tokens: int, says: str = "hello") -> Any:
    body = {
        "model": "chat",
        "messages": [{"role": "user", "content": says}],
        "max_tokens": tokens,
    }
    headers = {"authorization": f"Bearer {secret}"}
    return asyncio.create_task(client.post(CHAT, json=body, headers=headers))


@pytest.mark.parametrize("places", ["money", "requests"])
def test_of_nine_clients_seven_get_a_place_every_time(
    tmp_path: Path, store_url: str, figure: Callable[[str], None], places: str
) -> None:
    """Money for seven worst cases, or seven requests at a time, over two workers."""

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            backend = await stack.enter_async_context(ScriptedBackend())
            house = await stack.enter_async_context(open_house(tmp_path, store_url))
            world = await furnish(house, {"base_url": backend.base_url}, charge=("0", "1000"))
            amount = "0.7" if places == "money" else "9"
            budget = await house.make(
                "budgets", scope={"team": world.team["id"]}, amount=amount, period="total"
            )
            await house.policy(
                name="whole", scope={"tenant": world.tenant["id"]}, budget={"clamp": "off"}
            )
            if places == "requests":
                scope = {"tenant": world.tenant["id"]}
                await house.make("limits", scope=scope, concurrent_requests=7)
            await house.in_force()
            other = await stack.enter_async_context(another_worker(house, 1))
            watch = await stack.enter_async_context(Watch(store_url, budget["id"]))
            # What is refused costs nothing, and what is served nothing that could be seen here.
            backend.script = Script(tokens=1, usage="zero", body='{"error": "no"}', status=400)
            for turn in range(ROUNDS):
                backend.answering.clear()
                backend.book.clear()
                clients = [house.client, other.client] * 5
                asking = [ask(client, world.secret, 100) for client in clients[:9]]
                while len(backend.book) + sum(one.done() for one in asking) < 9:
                    await asyncio.sleep(0.005)
                backend.answering.set()
                answers = Counter(one.status_code for one in await asyncio.gather(*asking))
                assert answers == {400: 7, 429: 2}, turn
                while (await house.look(f"budgets/{budget['id']}"))["held"] != "0":
                    await asyncio.sleep(0.005)
            await watch.caught_up()
            assert watch.peak == 7 * NANOS // 10
            assert watch.most <= float(amount) * NANOS
            assert watch.writes == ROUNDS * 7 * 3
            figure(f"9 clients, 7 places by {places}, 2 workers, {ROUNDS} times: 7 each time")

    run(scenario())


def test_two_budgets_under_one_parent_in_any_order(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    """Each child may have more than half of what the parent has. Whoever comes and ends when, no
    account is ever above its cap, a refusal leaves no trace on any, and in the end the parent has
    what the children have."""
    draw = random.Random(20261122)

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            backend = await stack.enter_async_context(ScriptedBackend())
            house = await stack.enter_async_context(open_house(tmp_path, store_url))
            world = await furnish(house, {"base_url": backend.base_url}, charge=("0", "1000"))
            tenant = {"tenant_id": world.tenant["id"]}
            secrets, caps = {}, {"parent": "1"}
            budgets = {"parent": await budget(house, {"team": world.team["id"]}, "1")}
            for name, cap in (("one", "0.7"), ("two", "0.6")):
                team = await house.make("teams", parent_id=world.team["id"], name=name, **tenant)
                key = await house.make("keys", team_id=team["id"], name=name)
                secrets[name], caps[name] = key["secret"], cap
                budgets[name] = await budget(house, {"team": team["id"]}, cap)
            await house.policy(
                name="whole", scope={"tenant": world.tenant["id"]}, budget={"least_output": 1}
            )
            await house.in_force()
            other = await stack.enter_async_context(another_worker(house, 1))
            watches = {
                name: await stack.enter_async_context(Watch(store_url, budgets[name]))
                for name in budgets
            }
            asking, wait_ms = [], 0
            for _ in range(300):
                wait_ms = draw.choice([0, 5, 20, 60])
                said = f'script:{{"tokens": {draw.randint(1, 30)}, "delay_ms": {wait_ms}}}'
                name = draw.choice(["one", "two"])
                client = draw.choice([house.client, other.client])
                asking.append(ask(client, secrets[name], draw.choice([20, 100, 300]), said))
                if draw.random() < 0.5:
                    await asyncio.sleep(draw.choice([0, 0.002, 0.01]))
            answers = Counter(one.status_code for one in await asyncio.gather(*asking))
            assert set(answers) == {200, 429}
            rows = await ledger_rows(house)
            spent: dict[str, int] = defaultdict(int)
            for row in rows:
                spent[row.key_id] += row.counter_nanos
            parent = watches["parent"].balance
            while parent["posted"] != sum(spent.values()) or parent["held"]:
                await asyncio.sleep(0.01)  # they hear of it a little later
            found = {}
            for name, watch in watches.items():
                assert watch.peak <= float(caps[name]) * NANOS
                found[name] = (watch.balance["posted"], watch.balance["held"])
                assert found[name][1] == 0
            assert found["parent"][0] == found["one"][0] + found["two"][0] == sum(spent.values())
            assert len(rows) == answers[200] == len(backend.book)
            with redis.Redis.from_url(store_url) as client:
                assert client.zcard("mh:{s00}:holds") == 0
            figure(
                f"two budgets under one, 300 requests over 2 workers: {answers[200]} served; peaks "
                + ", ".join(f"{n} {w.peak / NANOS} of {caps[n]}" for n, w in watches.items())
            )

    run(scenario())


async def budget(house: Any, scope: dict[str, str], amount: str) -> str:
    made = await house.make("budgets", scope=scope, amount=amount, period="month")
    return str(made["id"])
