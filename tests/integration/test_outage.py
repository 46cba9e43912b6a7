"""The quota store goes away under load: who is served meanwhile, and that every answer is posted
and booked once when it is back, whatever was lost on the way or killed.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from sqlalchemy import select

from gateway.jobs import drain_journal, open_accounts, replay_spool
from gateway.stores.redis.scripts import ADMIT, SETTLE
from gateway.stores.sql.engine import open_engine, reading
from gateway.stores.sql.tables import usage_rows
from gateway.wiring.jobs import open_jobs
from tests.fault_proxy import FaultProxy, Strike
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend
from tests.workers import another_worker

HELLO = [{"role": "user", "content": "hello there"}]
COST = 100_000_000  # counter nanos: 100 tokens at 0.001, nothing for input


class Scene:
    """A furnished house whose store is behind a proxy."""

    def __init__(self, house: House, proxy: FaultProxy, backend: ScriptedBackend) -> None:
        self.house, self.proxy, self.backend = house, proxy, backend
        self.world = World(house)

    async def furnished(self) -> Self:
        self.backend.script = Script(tokens=100)
        backend = {"base_url": self.backend.base_url}
        self.world = await furnish(self.house, backend, charge=("0", "1000"))
        return self

    async def budget(self, outage: str, amount: str, scope: str = "tenant", **more: str) -> str:
        ids = {"tenant": self.world.tenant, "team": self.world.squad, "key": self.world.key}
        made = await self.house.make(
            "budgets",
            scope={scope: ids[scope]["id"]},
            amount=amount,
            period="month",
            outage=outage,
            **more,
        )
        await self.house.in_force()
        return str(made["id"])

    async def ask(self, **more: Any) -> Any:
        headers = {"authorization": f"Bearer {self.world.secret}"} | more.pop("headers", {})
        client = more.pop("client", self.house.client)
        body = {"model": "chat", "messages": HELLO, "max_tokens": 100} | more
        return await client.post("/v1/chat/completions", json=body, headers=headers)

    def store_goes(self) -> None:
        self.proxy.refuse = True
        self.proxy.reset()

    async def store_returns(self) -> None:
        self.proxy.refuse = False
        await self.house.data.channels.open()
        while self.house.data.plane._settler.waiting or self.house.data.plane.holds.busy:
            await asyncio.sleep(0.005)

    async def counters(self, budget_id: str) -> tuple[str, str]:
        """Spent and held, once the admin plane has found the store again, too."""
        while (shown := await self.house.look(f"budgets/{budget_id}"))["spent"] is None:
            await asyncio.sleep(0.02)
        return shown["spent"], shown["held"]

    async def booked(self) -> list[str]:
        """The requests of the ledger's rows, after all that waits for it, dead spools included."""
        stopping = asyncio.Event()
        stopping.set()
        async with open_jobs(self.house.settings, "jobs-1") as deps:
            for _ in range(3):  # hand in, drain, see that the ledger has it
                await replay_spool.run(deps, asyncio.Event())
                await drain_journal.run(deps, stopping)
        engine = open_engine(self.house.settings.database_url)
        with reading(engine) as connection:
            rows = connection.execute(select(usage_rows.c.request_id, usage_rows.c.counter_nanos))
            found = [row.request_id for row in rows if row.counter_nanos == COST]
        engine.dispose()
        return found

    async def agree(self, budget_id: str, spent: str) -> None:
        """Counters, ledger and the backend's book tell the same story, and a recount finds nothing
        to correct.
        """
        assert await self.counters(budget_id) == (spent, "0")
        assert sorted(await self.booked()) == sorted(e.request_id for e in self.backend.book)
        async with open_jobs(self.house.settings, "jobs-2") as deps:
            await open_accounts.run(deps, asyncio.Event())
        assert await self.counters(budget_id) == (spent, "0")


@asynccontextmanager
async def scene(home: Path, store_url: str, **settings: str) -> AsyncIterator[Scene]:
    target = Path(store_url.removeprefix("unix://").partition("?")[0])
    async with (
        ScriptedBackend() as backend,
        FaultProxy(target) as proxy,
        open_house(home, f"redis://127.0.0.1:{proxy.port}", **settings) as house,
    ):
        try:
            yield await Scene(house, proxy, backend).furnished()
        finally:
            proxy.calm()


def test_an_open_budget_serves_through_an_outage_and_its_overrun_is_visible(
    tmp_path: Path, store_url: str, database_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url, DATABASE_URL=database_url) as it:
            budget = await it.budget("open", "1")
            before = await asyncio.gather(*(it.ask() for _ in range(5)))
            it.store_goes()
            during = await asyncio.gather(*(it.ask() for _ in range(40)))
            assert {answer.status_code for answer in (*before, *during)} == {200}
            await it.store_returns()

            await it.agree(budget, "4.5")
            refused = await it.ask()
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "insufficient_quota"

    run(scenario())


@pytest.mark.parametrize("stream", [False, True])
def test_requests_under_way_when_the_store_goes_are_posted_once_too(
    tmp_path: Path, store_url: str, stream: bool
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            budget = await it.budget("open", "100")
            it.backend.answering.clear()
            early = [asyncio.create_task(it.ask(stream=stream)) for _ in range(8)]
            while len(it.backend.book) < 8:
                await asyncio.sleep(0.005)
            it.store_goes()
            late = [asyncio.create_task(it.ask(stream=stream)) for _ in range(8)]
            while len(it.backend.book) < 16:
                await asyncio.sleep(0.005)
            it.backend.answering.set()
            answers = await asyncio.gather(*early, *late)
            assert {answer.status_code for answer in answers} == {200}
            await it.store_returns()
            await it.agree(budget, "1.6")

    run(scenario())


@pytest.mark.parametrize("lost", ["request_lost", "reply_lost"])
def test_an_admission_that_was_lost_on_its_way_leaves_no_second_hold_and_no_second_bill(
    tmp_path: Path, store_url: str, lost: Any
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            budget = await it.budget("open", "100")
            await it.ask()  # the store knows the scripts
            await it.house.settled()
            strike = it.proxy.strike(Strike(lost, match=ADMIT.sha))
            assert (await it.ask()).status_code == 200
            assert strike.done.is_set()
            await it.house.settled()
            await it.store_returns()
            await it.agree(budget, "0.2")

    run(scenario())


def test_a_settlement_whose_confirmation_was_lost_is_posted_once(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            budget = await it.budget("open", "100")
            await it.ask()  # the store knows the scripts
            await it.house.settled()
            it.store_goes()
            assert (await it.ask()).status_code == 200
            await it.house.settled()
            strike = it.proxy.strike(Strike("reply_lost", match=SETTLE.sha))
            await it.store_returns()
            assert strike.done.is_set()
            await it.agree(budget, "0.2")

    run(scenario())


def test_what_a_worker_served_without_the_store_outlives_it(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            budget = await it.budget("open", "100")
            async with another_worker(it.house, 1) as worker:
                assert (await it.ask(client=worker.client)).status_code == 200
                it.store_goes()
                answers = [await it.ask(client=worker.client) for _ in range(10)]
                assert {answer.status_code for answer in answers} == {200}
                os.kill(worker.process.pid, signal.SIGKILL)
                worker.process.wait()
            await it.store_returns()
            assert len(await it.booked()) == 11
            await it.agree(budget, "1.1")

    run(scenario())


@pytest.mark.parametrize(
    ("modes", "status"),
    [
        ((), 200),
        (("open",), 200),
        (("open", "open"), 200),
        (("open", "bounded"), 503),
        (("strict", "open"), 503),
        (("bounded", "strict"), 503),
    ],
)
def test_the_tightest_budget_of_the_path_decides(
    tmp_path: Path, store_url: str, modes: tuple[str, ...], status: int
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            for scope, mode in zip(("tenant", "key"), modes, strict=False):
                await it.budget(mode, "100", scope)
            it.store_goes()
            answer = await it.ask()
            assert answer.status_code == status
            assert status == 200 or answer.json()["error"]["code"] == "quota_unavailable"

    run(scenario())


@pytest.mark.parametrize(("mode", "status"), [("bounded", 200), ("strict", 503)])
def test_a_soft_budget_refuses_in_an_outage_only_where_it_says_so(
    tmp_path: Path, store_url: str, mode: str, status: int
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            await it.budget(mode, "0.1", mode="soft")
            it.store_goes()
            assert (await it.ask()).status_code == status

    run(scenario())


def test_an_idempotency_key_is_not_served_while_nobody_can_tell_who_had_it(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            await it.budget("open", "100")
            it.store_goes()
            answer = await it.ask(headers={"idempotency-key": "one"})
            assert answer.status_code == 503
            assert "idempotency key" in answer.json()["error"]["message"]
            assert it.backend.book == []

    run(scenario())


@pytest.mark.parametrize(("knob", "served"), [("open", 3), ("strict", 0)])
def test_each_worker_lets_its_share_of_the_per_minute_limits_in_or_none(
    tmp_path: Path, store_url: str, knob: str, served: int
) -> None:
    async def scenario() -> None:
        settings = {"LIMITS_IN_OUTAGE": knob, "WORKERS": "2"}
        async with scene(tmp_path, store_url, **settings) as it:
            scope = {"key": it.world.key["id"]}
            await it.house.make("limits", scope=scope, requests_per_minute=36)  # bursts of 6
            await it.house.in_force()
            it.store_goes()
            answers = [await it.ask() for _ in range(8)]
            assert [answer.status_code for answer in answers].count(200) == served
            refused = {a.json()["error"]["code"] for a in answers if a.status_code != 200}
            assert refused == {"rate_limit_exceeded" if served else "quota_unavailable"}

    run(scenario())


def test_tokens_per_day_are_counted_though_nobody_could_be_asked(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            scope = {"key": it.world.key["id"]}
            await it.house.make("limits", scope=scope, tokens_per_day=250)
            await it.house.in_force()
            it.store_goes()
            answers = [await it.ask() for _ in range(3)]
            assert {answer.status_code for answer in answers} == {200}
            await it.house.settled()
            await it.store_returns()
            assert (await it.ask()).status_code == 429

    run(scenario())
