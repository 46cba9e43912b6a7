"""A store that was emptied, restarted on old data, or swapped: nothing is admitted against it until
its counters are what the ledger adds up to; rows stay exact and no cap is exceeded.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import func, select

from gateway.jobs import drain_journal, rebuild_counters
from gateway.jobs.deps import JobDeps
from gateway.jobs.runner import jobs_for, run_jobs
from gateway.stores.redis import epochs, keys
from gateway.stores.sql.engine import open_engine, reading
from gateway.stores.sql.epochs import numbers
from gateway.stores.sql.tables import usage_rows
from gateway.wiring.jobs import open_jobs
from tests import servers
from tests.holding import TAG
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]
STEPS = ["begun", "closed", "told", "placed", "counted", "held", "opened"]


class Scene:
    """A gateway on a store that may be killed; 100 tokens cost 0.1, of a budget of 1.00."""

    def __init__(
        self, house: House, world: World, backend: ScriptedBackend, store: servers.StoreServer
    ) -> None:
        self.house, self.world, self.backend, self.store = house, world, backend, store
        self.budget: dict[str, Any] = {}

    async def ask(self, tokens: int = 100, once: str = "") -> int:
        headers = {"authorization": f"Bearer {self.world.secret}"}
        headers |= {"idempotency-key": once} if once else {}
        body = {"model": "chat", "messages": HELLO, "max_tokens": tokens}
        answer = await self.house.client.post("/v1/chat/completions", json=body, headers=headers)
        return answer.status_code

    async def standing(self) -> tuple[str, str]:
        shown = await self.house.look(f"budgets/{self.budget['id']}")
        return shown["spent"], shown["held"]

    async def begun(self, requests: int) -> None:
        while len(self.backend.book) < requests:
            await asyncio.sleep(0.005)

    def restarted(self) -> None:
        """Killed, and started again on what it had written."""
        self.store.kill()
        self.store.start(whole=False)

    def wiped(self) -> None:
        """Killed, emptied and started again."""
        self.store.kill()
        for left in self.store.directory.glob("append*/*"):
            left.unlink()
        self.store.start(whole=False)

    @contextlib.asynccontextmanager
    async def jobs(self) -> AsyncIterator[JobDeps]:
        async with open_jobs(self.house.settings, "jobs-1") as deps:
            yield deps

    async def rebuilt(self) -> None:
        """As the jobs do it: again, where a step found that something had come between."""
        async with self.jobs() as deps:
            while True:
                await rebuild_counters.run(deps, asyncio.Event())
                with reading(deps.engine) as connection:
                    least = numbers(connection).get(TAG, 0)
                channels = deps.holds.channels
                if epochs.is_whole(channels, TAG, await epochs.read(channels, TAG), least):
                    return
                await asyncio.sleep(rebuild_counters.EVERY_S)

    async def drained(self) -> int:
        """Everything is in the ledger; answers what it adds up to, in nanos."""
        stopping = asyncio.Event()
        stopping.set()
        async with self.jobs() as deps:
            await drain_journal.run(deps, stopping)
        engine = open_engine(self.house.settings.database_url)
        with reading(engine) as connection:
            found = connection.scalar(select(func.sum(usage_rows.c.counter_nanos)))
        engine.dispose()
        return int(found or 0)


@contextlib.asynccontextmanager
async def scene(
    tmp_path: Path, database_url: str = "", amount: str = "1.00", **options: str
) -> AsyncIterator[Scene]:
    # Without leases, which would let some in until the store that is there is known for another.
    overrides = {"LEASE_SECONDS": "0"}
    if database_url:
        overrides["DATABASE_URL"] = database_url
    options = {"appendonly": "yes"} | options
    with servers.store_server(servers.valkey_binary(), **options) as store:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store.url, **overrides) as house,
        ):
            backend.script = Script(tokens=100)
            world = await furnish(house, {"base_url": backend.base_url}, charge=("0", "1000"))
            made = Scene(house, world, backend, store)
            made.budget = await house.make(
                "budgets", scope={"team": world.team["id"]}, amount=amount, period="month"
            )
            await house.in_force()
            yield made


def test_an_emptied_store_is_refused_until_its_counters_are_whole_again(
    tmp_path: Path, database_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, database_url) as here:
            assert [await here.ask() for _ in range(4)] == [200] * 4
            await here.house.settled()
            here.wiped()  # what was settled is in no ledger yet: only the spool has it
            assert {await here.ask() for _ in range(3)} == {503}

            await here.rebuilt()

            assert await here.standing() == ("0.4", "0")
            assert [await here.ask() for _ in range(7)] == [200] * 6 + [429]
            await here.house.settled()
            assert await here.drained() == 10**9
            assert len(here.backend.book) == 10

    run(scenario())


def test_a_store_that_is_restarted_on_its_data_is_another_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, appendfsync="always") as here:
            assert await here.ask() == 200
            await here.house.settled()
            here.restarted()
            assert await here.ask() == 503
            await here.rebuilt()
            assert await here.standing() == ("0.1", "0")
            assert await here.ask() == 200

    run(scenario())


def test_old_data_is_brought_up_to_what_the_ledger_and_the_spools_know(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, dbfilename="old.rdb", appendonly="no") as here:
            assert await here.ask() == 200
            await here.house.settled()
            here.backend.answering.clear()
            asking = [asyncio.create_task(here.ask()) for _ in range(2)]
            await here.begun(3)
            with redis.Redis.from_url(here.store.url) as client:
                client.save()  # two holds, one settlement
            here.backend.answering.set()
            assert [await one for one in asking] == [200, 200]
            await here.drained()
            assert await here.ask() == 200
            await here.house.settled()
            here.store.kill()
            here.store.start(whole=False)  # with the two holds, which have ended long since
            assert await here.ask() == 503
            await here.rebuilt()

            assert await here.standing() == ("0.4", "0")
            assert [await here.ask() for _ in range(7)] == [200] * 6 + [429]
            await here.house.settled()
            assert await here.drained() == 10**9

    run(scenario())


def test_requests_that_live_through_the_loss_keep_their_money_set_aside(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as here:
            assert await here.ask() == 200
            here.backend.answering.clear()
            asking = [asyncio.create_task(here.ask()) for _ in range(6)]
            await here.begun(7)
            here.wiped()
            await here.rebuilt()

            assert await here.standing() == ("0.1", "0.6")
            more = [asyncio.create_task(here.ask()) for _ in range(6)]
            await here.begun(10)
            here.backend.answering.set()
            assert [await one for one in asking] == [200] * 6
            assert sorted([await one for one in more]) == [200] * 3 + [429] * 3
            await here.house.settled()
            assert await here.standing() == ("1", "0")
            assert await here.drained() == 10**9
            assert await here.standing() == ("1", "0")

    run(scenario())


def test_an_epoch_older_than_the_ledger_remembers_is_rebuilt_in_the_same_process(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path) as here:
            await here.rebuilt()  # whole as the test's store is, the ledger has no epoch yet
            here.wiped()
            await here.rebuilt()
            with redis.Redis.from_url(here.store.url) as client:
                current = client.get(keys.epoch(TAG))
                stale = current.replace(b"open:1:", b"open:0:")
                client.set(keys.epoch(TAG), stale)
                await here.house.in_force()
                assert await here.ask() == 503
                await here.rebuilt()
                assert client.get(keys.epoch(TAG)).startswith(b"open:2:")
            assert await here.ask() == 200

    run(scenario())


_REBUILD = """
import asyncio, sys
from gateway.jobs import rebuild_counters
from gateway.settings import Settings
from gateway.wiring.jobs import open_jobs
async def main():
    async with open_jobs(Settings.from_env(__import__("os").environ), "jobs-2") as deps:
        await rebuild_counters.run(deps, asyncio.Event())
asyncio.run(main())
"""


def _killed_at(step: str, here: Scene) -> int:
    settings = here.house.settings
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("METERHOUSE_", "OTEL_"))},
        "METERHOUSE_HOME": str(settings.home),
        "METERHOUSE_REDIS_URL": settings.redis_url,
        "METERHOUSE_DATABASE_URL": settings.database_url,
        "TEST_FAILPOINTS": f"rebuild.{step}=kill",
        "TEST_MAY_KILL_ME": "yes",
    }
    return subprocess.run(
        [sys.executable, "-P", "-c", _REBUILD], env=environ, check=False, timeout=60
    ).returncode


@pytest.mark.parametrize("step", STEPS)
def test_a_rebuild_killed_at_any_step_is_made_by_the_next(
    tmp_path: Path, database_url: str, step: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, database_url) as here:
            assert await here.ask() == 200
            await here.drained()
            assert await here.ask() == 200
            here.backend.answering.clear()
            asking = [asyncio.create_task(here.ask()) for _ in range(3)]
            await here.begun(5)
            here.wiped()
            assert await asyncio.to_thread(_killed_at, step, here) == -signal.SIGKILL
            with redis.Redis.from_url(here.store.url) as client:
                client.delete(keys.lease(f"rebuild:{{{TAG}}}"))  # it would expire in 5 s
            if step != "opened":
                assert await here.ask() == 503
            await here.rebuilt()

            assert await here.standing() == ("0.2", "0.3")
            more = [asyncio.create_task(here.ask()) for _ in range(9)]
            await here.begun(10)
            here.backend.answering.set()
            assert [await one for one in asking] == [200] * 3
            assert sorted([await one for one in more]) == [200] * 5 + [429] * 4
            await here.house.settled()
            assert await here.drained() == 10**9
            assert await here.standing() == ("1", "0")

    run(scenario(), 60)


def test_under_load_a_store_killed_or_emptied_costs_seconds_and_no_cent(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, amount="30.00") as here:
            here.backend.script = Script(tokens=100, delay_ms=20)
            done: list[tuple[float, int]] = []  # when it was asked, and what the answer was
            stop = asyncio.Event()

            async def client() -> None:
                while not stop.is_set():
                    asked = time.monotonic()
                    done.append((asked, await here.ask()))

            async def jobs() -> None:
                async with here.jobs() as deps:
                    await run_jobs(deps, stop, jobs_for(30_000))

            async with asyncio.TaskGroup() as tasks:
                working = [tasks.create_task(client()) for _ in range(16)]
                tasks.create_task(jobs())
                back: list[int] = []
                for lose in (here.wiped, here.restarted, here.wiped):
                    served = sum(status == 200 for _, status in done)
                    while sum(status == 200 for _, status in done) < served + 60:
                        await asyncio.sleep(0.01)
                    await asyncio.to_thread(lose)
                    began = time.monotonic()
                    while not any(at > began and status == 200 for at, status in done):
                        await asyncio.sleep(0.005)
                    back.append(int((time.monotonic() - began) * 1000))
                while done[-1][1] != 429:
                    await asyncio.sleep(0.02)
                stop.set()
                await asyncio.gather(*working)
            await here.house.settled()
            plane = here.house.data.plane
            while plane.holds.busy or plane._settler.waiting:  # what the last loss left unconfirmed
                await asyncio.sleep(0.01)
            total = await here.drained()
            generated = len(here.backend.book)
            assert total == generated * 10**8
            assert total <= 30 * 10**9
            figure(
                f"killed -9 and emptied, kept, emptied under 16 clients: served again {back} ms"
                f" after the store was there; {generated} answers of 0.1 of a budget of 30.00 ="
                f" {total / 10**9} in the ledger; refused meanwhile:"
                f" {sum(status == 503 for _, status in done)}"
            )

    run(scenario(), 120)
