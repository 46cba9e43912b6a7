"""A backend that takes only so many requests at a time: never more than that, in turns that are
fair, over all workers; and a word in time for whoever cannot be served.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests import servers
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend
from tests.workers import another_worker

HELLO = [{"role": "user", "content": "hello there"}]


class Scene:
    """A house with one backend, and two teams."""

    def __init__(self, house: House, world: World, backend: ScriptedBackend) -> None:
        self.house = house
        self.world = world
        self.backend = backend
        self.secrets: dict[str, str] = {"first": world.secret}

    async def team(self, name: str, **fields: Any) -> None:
        """Another team, with a key."""
        tenant_id = self.world.tenant["id"]
        team = await self.house.make("teams", tenant_id=tenant_id, name=name, **fields)
        key = await self.house.make("keys", team_id=team["id"], name=f"{name}-app")
        self.secrets[name] = key["secret"]
        await self.house.in_force()

    async def ask(
        self, team: str = "first", client: httpx.AsyncClient | None = None, **body: Any
    ) -> httpx.Response:
        return await (client or self.house.client).post(
            "/v1/chat/completions",
            json={"model": "chat", "messages": HELLO, "max_tokens": 8} | body,
            headers={"authorization": f"Bearer {self.secrets[team]}"},
        )

    @property
    def waiting(self) -> int:
        desks = self.house.data.plane.turns.desks
        return sum(len(desk.queue) for desk in desks)

    async def until_waiting(self, many: int) -> None:
        while self.waiting != many:
            await asyncio.sleep(0.005)


@asynccontextmanager
async def scene(
    home: Path, store_url: str, at_a_time: int, **settings: str
) -> AsyncIterator[Scene]:
    async with ScriptedBackend() as backend, open_house(home, store_url, **settings) as house:
        fields = {"base_url": backend.base_url, "max_concurrency": at_a_time}
        world = await furnish(house, fields)
        yield Scene(house, world, backend)


def test_no_more_are_at_the_backend_than_it_takes_and_all_are_served(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url, 3) as it:
            it.backend.script = Script(delay_ms=10)
            answers = await asyncio.gather(*(it.ask() for _ in range(60)))
            assert {answer.status_code for answer in answers} == {200}
            assert it.backend.peak == 3

    run(scenario())


def test_two_workers_have_the_slots_together(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url, 4, WORKERS="2") as it:
            it.backend.script = Script(delay_ms=20)
            async with another_worker(it.house, 1) as other:
                mine = [it.ask() for _ in range(60)]
                others = [it.ask(client=other.client) for _ in range(60)]
                answers = await asyncio.gather(*mine, *others)
            assert {answer.status_code for answer in answers} == {200}
            assert it.backend.peak == 4

    run(scenario())


def test_the_slots_of_a_worker_that_is_killed_come_back_and_no_earlier(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url, 3, WORKERS="2") as it:
            it.backend.answering.clear()
            async with another_worker(it.house, 1) as other:
                lost = [asyncio.create_task(it.ask(client=other.client)) for _ in range(3)]
                while it.backend.at_work < 3:
                    await asyncio.sleep(0.005)
                waiting = [asyncio.create_task(it.ask()) for _ in range(6)]
                await it.until_waiting(6)
                other.process.kill()
                await asyncio.gather(*lost, return_exceptions=True)
                it.backend.answering.set()
                answers = await asyncio.gather(*waiting)
            assert {answer.status_code for answer in answers} == {200}
            assert it.backend.peak == 3

    run(scenario())


def test_who_gets_no_turn_in_time_hears_when_to_come_back(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url, 1, QUEUE_SECONDS="1") as it:
            it.backend.answering.clear()
            first = asyncio.create_task(it.ask())
            while not it.backend.book:
                await asyncio.sleep(0.005)
            answer = await it.ask()
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "overloaded"
            assert "1 s" in answer.json()["error"]["message"]
            assert 1 <= int(answer.headers["retry-after"]) <= 5
            it.backend.answering.set()
            assert (await first).status_code == 200
            await it.house.settled()
            assert len(it.backend.book) == 1
            assert (await it.ask()).status_code == 200

    run(scenario())


def test_a_full_queue_makes_room_for_the_team_that_has_less_in_it(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url, 1, QUEUE_LENGTH="4") as it:
            await it.team("second")
            it.backend.answering.clear()
            flood = [asyncio.create_task(it.ask())]
            while not it.backend.book:
                await asyncio.sleep(0.005)
            flood += [asyncio.create_task(it.ask()) for _ in range(7)]
            done, _ = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
            assert {each.result().json()["error"]["code"] for each in done} == {"overloaded"}
            await it.until_waiting(4)
            other = asyncio.create_task(it.ask("second"))
            while sum(each.done() for each in flood) < 4:
                await asyncio.sleep(0.005)
            assert not other.done()
            it.backend.answering.set()
            assert (await other).status_code == 200
            statuses = [answer.status_code for answer in await asyncio.gather(*flood)]
            assert sorted(statuses) == [200] * 4 + [503] * 4

    run(scenario())


def test_a_client_that_hangs_up_waits_no_more_and_owes_nothing(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url, 1) as it:
            it.backend.answering.clear()
            first = asyncio.create_task(it.ask())
            while not it.backend.book:
                await asyncio.sleep(0.005)
            leaving = [asyncio.create_task(it.ask()) for _ in range(5)]
            await it.until_waiting(5)
            for each in leaving:
                each.cancel()
            await it.until_waiting(0)
            it.backend.answering.set()
            assert (await first).status_code == 200
            await it.house.settled()
            assert len(it.backend.book) == 1

    run(scenario())


def test_a_worker_that_drains_sends_away_those_who_wait(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url, 1) as it:
            it.backend.answering.clear()
            first = asyncio.create_task(it.ask())
            while not it.backend.book:
                await asyncio.sleep(0.005)
            waiting = [asyncio.create_task(it.ask()) for _ in range(3)]
            await it.until_waiting(3)
            draining = asyncio.create_task(it.house.data.plane.drain(20))
            for answer in await asyncio.gather(*waiting):
                assert answer.status_code == 503
                assert "retry-after" in answer.headers
            assert not first.done()
            it.backend.answering.set()
            assert (await first).status_code == 200
            await draining

    run(scenario())


def test_a_lower_priority_waits_for_all_others(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url, 1) as it:
            await it.team("second")
            await it.house.policy(
                name="batch", scope={"team": it.world.squad["id"]}, priority=2
            )  # fmt: skip
            await it.house.in_force()
            it.backend.answering.clear()
            ahead = asyncio.create_task(it.ask("second"))
            while not it.backend.book:
                await asyncio.sleep(0.005)
            batch = [asyncio.create_task(it.ask("first")) for _ in range(3)]
            await it.until_waiting(3)
            others = [asyncio.create_task(it.ask("second", max_tokens=3)) for _ in range(3)]
            await it.until_waiting(6)
            it.backend.answering.set()
            await asyncio.gather(ahead, *batch, *others)
            assert [entry.max_tokens for entry in it.backend.book] == [8, 3, 3, 3, 8, 8, 8]

    run(scenario())


def test_a_team_counts_with_its_weight_and_with_no_more_than_the_team_above_it_has(
    tmp_path: Path, store_url: str
) -> None:
    """One at a time, and all as large: while both wait, three of the heavy one for each other."""

    async def scenario() -> None:
        async with scene(tmp_path, store_url, 1) as it:
            tenant_id = it.world.tenant["id"]
            above = await it.house.make("teams", tenant_id=tenant_id, name="above", weight=3)
            await it.team("third")
            await it.team("heavy", parent_id=above["id"], weight=1_000)
            it.backend.answering.clear()
            ahead = asyncio.create_task(it.ask("third", user="ahead"))
            while not it.backend.book:
                await asyncio.sleep(0.005)
            asked = [
                asyncio.create_task(it.ask(team, user=team))
                for team, many in (("first", 8), ("heavy", 9))
                for _ in range(many)
            ]
            await it.until_waiting(17)
            it.backend.answering.set()
            await asyncio.gather(ahead, *asked)
            order = [entry.body["user"] for entry in it.backend.book[1:]]
            together = order[: len(order) - order[::-1].index("heavy")]
            for served in range(1, len(together) + 1):
                heavy = together[:served].count("heavy")
                assert abs(heavy - 3 * (served - heavy)) <= 3

    run(scenario())


def test_where_one_backend_is_full_the_next_that_may_serve_does(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as small,
            ScriptedBackend() as large,
            open_house(tmp_path, store_url) as house,
        ):
            world = await furnish(
                house,
                {"base_url": small.base_url, "max_concurrency": 1},
                {"base_url": large.base_url},
            )
            it = Scene(house, world, small)
            for backend, amount in zip(world.backends, ("1", "9"), strict=True):
                for meter in ("input", "output"):
                    await house.make(
                        "prices", book="cost", backend_id=backend["id"], upstream_model="m",
                        meter=meter, amount_per_million=amount, currency="USD",
                        effective_from="2026-01-01T00:00:00Z",
                    )  # fmt: skip
            await house.in_force()
            small.answering.clear()
            first = asyncio.create_task(it.ask())
            while not small.book:
                await asyncio.sleep(0.005)
            assert [(await it.ask()).status_code for _ in range(3)] == [200] * 3
            assert (len(small.book), len(large.book)) == (1, 3)
            small.answering.set()
            assert (await first).status_code == 200
            assert {desk.backend_id for desk in house.data.plane.turns.desks} == {
                world.backends[0]["id"]
            }

    run(scenario())


def test_without_the_store_a_worker_goes_on_with_the_slots_it_has(tmp_path: Path) -> None:
    async def scenario(store: servers.StoreServer) -> None:
        async with scene(tmp_path, store.url, 2, STORE_TIMEOUT_MS="200") as it:
            await it.house.make(
                "budgets", scope={"tenant": it.world.tenant["id"]}, amount="100", period="day",
                mode="hard", outage="open",
            )  # fmt: skip
            await it.house.in_force()
            it.backend.script = Script(delay_ms=10)
            assert {a.status_code for a in await asyncio.gather(*(it.ask() for _ in range(8)))} == {
                200
            }
            store.kill()
            answers = await asyncio.gather(*(it.ask() for _ in range(20)))
            assert {answer.status_code for answer in answers} == {200}
            assert it.backend.peak == 2
            store.start()

    with servers.store_server(servers.valkey_binary()) as store:
        run(scenario(store))


def test_status_and_metrics_show_who_waits_where(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url, 1) as it:
            it.backend.answering.clear()
            asked = [asyncio.create_task(it.ask()) for _ in range(4)]
            await it.until_waiting(3)
            while True:
                queues = (await it.house.look("status"))["backend_queues"]
                if queues and queues[0]["waiting"] == 3:
                    break
                await asyncio.sleep(0.05)
            (queue,) = queues
            assert (queue["name"], queue["max_concurrency"]) == ("backend-0", 1)
            assert (queue["slots"], queue["busy"]) == (1, 1)
            assert queue["longest_wait_ms"] > 0
            it.backend.answering.set()
            await asyncio.gather(*asked)

    run(scenario())


def test_a_team_is_served_while_another_floods_two_workers(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    """Twenty requests of one team to each of the other's. Keys of one team come in one line: that
    is what the order of arrival would do.
    """

    async def scenario() -> None:
        async with scene(tmp_path, store_url, 4, WORKERS="2") as it:
            await it.team("second")
            it.backend.script = Script(delay_ms=40)
            async with another_worker(it.house, 1) as other:
                clients = (it.house.client, other.client)
                over = asyncio.Event()

                async def flood(number: int) -> None:
                    while not over.is_set():
                        assert (await it.ask(client=clients[number % 2])).status_code == 200

                async def waits_ms(team: str) -> list[float]:
                    found = []
                    for number in range(20):
                        began_ms = time.monotonic() * 1000
                        assert (await it.ask(team, clients[number % 2])).status_code == 200
                        found.append(time.monotonic() * 1000 - began_ms - 40)
                    return sorted(found)

                flooding = [asyncio.create_task(flood(number)) for number in range(40)]
                while it.waiting < 15:
                    await asyncio.sleep(0.01)
                in_line, in_turns = await waits_ms("first"), await waits_ms("second")
                over.set()
                await asyncio.gather(*flooding)
            assert it.backend.peak == 4
            assert in_turns[10] < in_line[10]
            for name, found in (("in one line", in_line), ("in turns", in_turns)):
                figure(
                    f"{name}: beyond the backend's 40 ms, half wait {found[10]:.0f} ms,"
                    f" the longest {found[-1]:.0f} ms"
                )

    run(scenario())
