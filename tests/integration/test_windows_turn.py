"""Windows through the real admission: days that end while it goes on, have 23 or 25 hours, and
workers whose clocks are wrong. The store's clock alone says which window a hold belongs to.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
import redis
import redis.asyncio

from billing.periods import window
from gateway.stores.redis import keys
from tests.booked import ledger_rows
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend
from tests.workers import another_worker
from tests.zones import day_of, east_for_midnight_at, write_zone, zones_in

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {
    "model": "chat",
    "messages": [{"role": "user", "content": "hello there"}],
    "max_tokens": 100,
}
NANOS = 10**9
ZONE = "Antarctica/Troll"  # a real name; what it means is each test's


class TooLateError(Exception):
    """The day had ended before there was anything to see of it."""


def in_time(story: Callable[[int], None]) -> None:
    """Plays it with a day that ends in so many seconds: in more where the machine is too busy."""
    for lead_s in (4, 20, 60):
        with suppress(TooLateError):
            return story(lead_s)
    raise AssertionError("no day was long enough")


async def a_world(house: House, backend: ScriptedBackend, zone: str) -> World:
    """10 tokens at 100 per million each: a request holds 0.01 and costs 0.001."""
    world = await furnish(house, {"base_url": backend.base_url}, charge=("0", "100"))
    backend.script = Script(tokens=10)
    await moved(house, world, zone)
    return world


async def moved(house: House, world: World, zone: str) -> None:
    """The tenant's days are those of the zone."""
    made = await house.admin.put(
        f"/tenants/{world.tenant['id']}",
        json={"name": "acme", "currency": "USD", "timezone": zone},
    )
    assert made.status_code == 200, made.text
    await house.in_force()


async def newly_known(house: House, world: World, *clients: httpx.AsyncClient) -> str:
    """The secret of a new key that each of these workers knows, with all that was made before."""
    made = await house.make("keys", team_id=world.squad["id"], name="new")
    headers = {"authorization": f"Bearer {made['secret']}"}
    for client in clients:
        while (await client.get("/v1/models", headers=headers)).status_code != 200:
            await asyncio.sleep(0.02)
    return str(made["secret"])


def posted(store_url: str, budget_id: str, window_id: str) -> tuple[int, int]:
    with redis.Redis.from_url(store_url) as client:
        found: Any = client.hmget(keys.account("s00", budget_id, window_id), "posted", "held")
    return int(found[0] or 0), int(found[1] or 0)


async def first_admitted(
    house: House, world: World, backend: ScriptedBackend
) -> "asyncio.Task[httpx.Response]":
    """Asks for one token until that is dispatched."""
    before = len(backend.book)
    while True:
        asking = asyncio.create_task(house.ask(world.secret, **BODY | {"max_tokens": 1}))
        while not asking.done() and len(backend.book) == before:
            await asyncio.sleep(0.005)
        if len(backend.book) > before:
            return asking
        assert (await asking).status_code == 429


@pytest.mark.parametrize("hours", [23, 25])
def test_a_day_of_23_or_25_hours_is_one_window_to_its_last_second(
    tmp_path: Path, store_url: str, hours: int
) -> None:
    in_time(lambda lead_s: _one_window(tmp_path / str(lead_s), store_url, hours, lead_s))


def _one_window(home: Path, store_url: str, hours: int, lead_s: int) -> None:
    end_s = int(time.time()) + 1 + lead_s
    write_zone(home / "zones", ZONE, *day_of(hours, end_s))
    with zones_in(home / "zones"):
        today = window("day", ZoneInfo(ZONE), (end_s - 1) * 10**6)
        assert today.end_us - today.start_us == hours * 3_600_000_000
        assert today.end_us == end_s * 10**6

        async def scenario() -> None:
            async with ScriptedBackend() as backend, open_house(home, store_url) as house:
                world = await a_world(house, backend, ZONE)
                budget = await house.make(
                    "budgets", scope={"key": world.key["id"]}, amount="0.01", period="day"
                )
                await house.in_force()
                backend.answering.clear()
                holding = asyncio.create_task(house.ask(world.secret, **BODY))
                while not backend.book:
                    await asyncio.sleep(0.005)
                refused = await house.ask(world.secret, **BODY)
                if time.time() >= end_s:
                    backend.answering.set()
                    await holding
                    raise TooLateError
                assert refused.status_code == 429
                admitted = await first_admitted(house, world, backend)
                turned = time.time()
                backend.answering.set()
                assert (await admitted).status_code == 200
                assert (await holding).status_code == 200
                assert end_s <= turned
                await house.settled()
                tomorrow = window("day", ZoneInfo(ZONE), end_s * 10**6)
                # What was held yesterday was posted yesterday.
                assert posted(store_url, budget["id"], today.id) == (NANOS // 1000, 0)
                assert posted(store_url, budget["id"], tomorrow.id) == (NANOS // 10_000, 0)

        run(scenario())


class Writes:
    """Every change of a budget's accounts as the store made it: when, which window, which field."""

    def __init__(self, store_url: str, budget_id: str) -> None:
        self._client = redis.asyncio.Redis.from_url(store_url)
        self._name = f"acct:{budget_id}:"
        self.seen: list[tuple[float, str, str, int]] = []

    async def listen(self, ready: asyncio.Event) -> None:
        async with self._client.monitor() as monitor:
            ready.set()
            async for command in monitor.listen():
                words = command["command"].split(" ")
                if words[0] == "HINCRBY" and self._name in words[1]:
                    if words[2].startswith("lease:"):
                        continue  # a part of what is `leased`
                    window_id = words[1].rpartition(":")[2]
                    self.seen.append((command["time"], window_id, words[2], int(words[3])))

    async def close(self) -> None:
        await self._client.aclose()

    def peak(self, window_id: str) -> int:
        """The most that posted, held and leased came to in this window, at any write."""
        total = most = 0
        for _, of, _, change in self.seen:
            total += change if of == window_id else 0
            most = max(most, total)
        return most


async def keep_asking(secret: str, client: httpx.AsyncClient, until_s: float) -> int:
    """How many of its requests were served."""
    served = 0
    headers = {"authorization": f"Bearer {secret}"}
    while time.time() < until_s:
        answer = await client.post(CHAT, json=BODY, headers=headers)
        assert answer.status_code in (200, 429), answer.text
        served += answer.status_code == 200
        await asyncio.sleep(0.02)
    return served


def test_a_day_turns_by_the_stores_clock_for_workers_whose_clocks_are_wrong(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    in_time(lambda lead_s: _turned(tmp_path / str(lead_s), store_url, figure, lead_s))


def _turned(home: Path, store_url: str, figure: Callable[[str], None], lead_s: int) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            backend = await stack.enter_async_context(ScriptedBackend())
            house = await stack.enter_async_context(open_house(home, store_url))
            world = await a_world(house, backend, "Europe/Berlin")
            late = await stack.enter_async_context(another_worker(house, 1, -5_400))
            early = await stack.enter_async_context(another_worker(house, 2, 5_400))
            clients = (house.client, late.client, early.client)
            end_s = int(time.time()) + 1 + lead_s
            write_zone(home / "zones", ZONE, (0, east_for_midnight_at(end_s)))
            await moved(house, world, ZONE)
            budget = await house.make(
                "budgets", scope={"team": world.team["id"]}, amount="0.1", period="day"
            )
            secret = await newly_known(house, world, *clients)
            if time.time() >= end_s - 1:
                raise TooLateError
            writes, ready = Writes(store_url, budget["id"]), asyncio.Event()
            listening = asyncio.create_task(writes.listen(ready))
            await ready.wait()
            served = await asyncio.gather(
                *(keep_asking(secret, client, end_s + 1.5) for client in clients)
            )
            rows = await ledger_rows(house)
            await asyncio.sleep(0.1)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await writes.close()

            today, tomorrow = (
                window("day", ZoneInfo(ZONE), at_s * 10**6).id for at_s in (end_s - 1, end_s)
            )
            assert {window_id for _, window_id, _, _ in writes.seen} == {today, tomorrow}
            for at_s, window_id, field, change in writes.seen:
                if field == "held" and change > 0:
                    assert (window_id == tomorrow) == (at_s >= end_s), (at_s - end_s, window_id)
            for window_id in (today, tomorrow):
                assert writes.peak(window_id) <= NANOS // 10
            # The ledger knows the same windows: counters can be rebuilt from it.
            by_window = Counter[str]()
            for row in rows:
                admitted = window("day", ZoneInfo(ZONE), row.admitted_at_us).id
                by_window[admitted] += row.counter_nanos
            for window_id in (today, tomorrow):
                assert posted(store_url, budget["id"], window_id) == (by_window[window_id], 0)
            assert min(served) > 0
            figure(
                f"clocks right, 1.5 h late, 1.5 h early: {served} served over the end of a day;"
                f" {len(writes.seen)} writes, each in the store's day; posted {dict(by_window)}"
            )

    with zones_in(home / "zones"):
        run(scenario())


def test_workers_in_three_different_months_share_the_stores_month(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            backend = await stack.enter_async_context(ScriptedBackend())
            house = await stack.enter_async_context(open_house(tmp_path, store_url))
            world = await a_world(house, backend, "Europe/Berlin")
            budget = await house.make(
                "budgets", scope={"tenant": world.tenant["id"]}, amount="0.06", period="month"
            )
            await house.policy(
                name="whole", scope={"tenant": world.tenant["id"]}, budget={"clamp": "off"}
            )
            await house.in_force()
            month = window("month", ZoneInfo("Europe/Berlin"), time.time_ns() // 1000)
            back_s = month.start_us / 1e6 - time.time() - 3_600
            on_s = month.end_us / 1e6 - time.time() + 3_600
            before = await stack.enter_async_context(another_worker(house, 1, back_s))
            after = await stack.enter_async_context(another_worker(house, 2, on_s))
            backend.answering.clear()
            headers = {"authorization": f"Bearer {world.secret}"}
            asking = [
                asyncio.create_task(client.post(CHAT, json=BODY, headers=headers))
                for _ in range(5)
                for client in (before.client, house.client, after.client)
            ]
            while len(backend.book) + sum(one.done() for one in asking) < 15:
                await asyncio.sleep(0.01)
            backend.answering.set()
            answers = Counter(one.status_code for one in await asyncio.gather(*asking))
            assert answers == {200: 6, 429: 9}
            rows = await ledger_rows(house)
            with redis.Redis.from_url(store_url) as client:
                accounts = [key.decode() for key in client.scan_iter("*:acct:*")]
            assert accounts == [keys.account("s00", budget["id"], month.id)]
            assert posted(store_url, budget["id"], month.id) == (6 * NANOS // 1000, 0)
            assert len(rows) == 6
            assert all(month.start_us <= row.admitted_at_us < month.end_us for row in rows)
            figure("15 requests from last month, this month and next: 6 of 6 places, one account")

    run(scenario())
