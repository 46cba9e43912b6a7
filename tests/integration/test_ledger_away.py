"""The database goes away under load and comes back: requests are served meanwhile, their outcomes
wait in the journal, and then the ledger has each of them once.
"""

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy

from gateway.jobs.runner import jobs_for, run_jobs
from gateway.stores.redis import keys
from gateway.wiring.jobs import open_jobs
from tests import servers
from tests.booked import ledger_rows
from tests.fault_proxy import FaultProxy
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]
BODY: dict[str, Any] = {"model": "chat", "messages": HELLO, "max_tokens": 20}
AWAY_S = 2.0
MANY = 10
Outage = Callable[[], Awaitable[None]]


class Load:
    """Requests until it is told to stop."""

    def __init__(self, house: House, world: World) -> None:
        self._house, self._secret = house, world.secret
        self.answers: Counter[int] = Counter()
        self._stopping = asyncio.Event()
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(4)]

    async def _ask(self) -> None:
        while not self._stopping.is_set():
            answer = await self._house.ask(self._secret, **BODY)
            self.answers[answer.status_code] += 1
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        self._stopping.set()
        await asyncio.gather(*self._tasks)


@asynccontextmanager
async def jobs(house: House) -> AsyncIterator[None]:
    """The jobs of the house, as its process runs them."""
    stopping = asyncio.Event()
    async with open_jobs(house.settings, "jobs") as deps:
        running = asyncio.create_task(run_jobs(deps, stopping, jobs_for(deps.holds.ttl_ms)))
        try:
            yield
        finally:
            stopping.set()
            await running


async def survived(
    home: Path, store_url: str, database_url: str, outage: Outage, back: Outage
) -> str:
    """Load before, during and after; what came of it."""
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(ScriptedBackend())
        backend.script = Script(tokens=5)
        house = await stack.enter_async_context(
            open_house(home, store_url, DATABASE_URL=database_url)
        )
        world = await furnish(house, {"base_url": backend.base_url})
        budget = await house.make(
            "budgets", scope={"team": world.team["id"]}, amount="1000", period="month"
        )
        await house.in_force()
        await stack.enter_async_context(jobs(house))
        load = Load(house, world)
        await asyncio.sleep(0.5)
        await outage()
        before = load.answers.total()
        with redis.Redis.from_url(store_url) as store:
            waited = 0
            since = time.monotonic()
            while time.monotonic() < since + AWAY_S or load.answers.total() - before < MANY:
                await asyncio.sleep(0.1)
                waited = max(waited, int(store.xlen(keys.journal("s00"))))
            during = load.answers.total() - before
            await back()
            await asyncio.sleep(0.5)
            await load.stop()
            await house.settled()
            while store.xlen(keys.journal("s00")):
                await asyncio.sleep(0.05)
        rows = await ledger_rows(house)
        shown = await house.look(f"budgets/{budget['id']}")
    assert set(load.answers) == {200}
    assert during >= MANY
    assert sorted(row.request_id for row in rows) == sorted(e.request_id for e in backend.book)
    assert (shown["held"], float(shown["spent"])) == ("0", sum(r.counter_nanos for r in rows) / 1e9)
    return f"{during} served in {AWAY_S} s, {waited} waiting at most; {len(rows)} rows, each once"


def proxied(url: str, port: int) -> str:
    """The same database, by way of a proxy."""
    direct = sqlalchemy.make_url(url)
    rest = {name: value for name, value in direct.query.items() if name != "host"}
    moved = direct.set(host="127.0.0.1", port=port, query=rest)
    return moved.render_as_string(hide_password=False)


def target(url: str) -> Any:
    direct = sqlalchemy.make_url(url)
    socket = direct.query.get("host")
    if isinstance(socket, str):
        return Path(socket) / ".s.PGSQL.5432"
    return direct.host or "127.0.0.1", direct.port or 5432


@pytest.mark.parametrize("kind", ["down", "silent", "slow", "read_only"])
def test_requests_go_on_while_postgresql_is_away(
    tmp_path: Path, store_url: str, postgres_url: str, kind: str, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with FaultProxy(target(postgres_url)) as proxy:

            async def outage() -> None:
                proxy.refuse = kind == "down"
                proxy.blackhole = kind == "silent"
                proxy.delay_ms = 200 if kind == "slow" else 0
                if kind == "down":
                    proxy.reset()
                if kind == "read_only":
                    await asyncio.to_thread(read_only, postgres_url, "on")

            async def back() -> None:
                proxy.calm()
                if kind == "silent":
                    proxy.reset()  # what was on its way is lost, and now it shows
                if kind == "read_only":
                    await asyncio.to_thread(read_only, postgres_url, "off")

            url = proxied(postgres_url, proxy.port)
            told = await survived(tmp_path, store_url, url, outage, back)
            figure(f"PostgreSQL {kind}: {told}")

    run(scenario())


def read_only(url: str, switch: str) -> None:
    """As a server that another has been made the primary of; it lets nobody write any more."""
    engine = sqlalchemy.create_engine(
        url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
    )
    name = sqlalchemy.make_url(url).database
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with engine.connect() as connection:
        connection.exec_driver_sql("SET default_transaction_read_only = off")
        connection.exec_driver_sql(
            f'ALTER DATABASE "{name}" SET default_transaction_read_only = {switch}'
        )
        if switch == "on":  # what is left of "off" must be noticed by whoever is refused
            connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid) {others}")
    engine.dispose()


def test_requests_go_on_while_postgresql_is_restarted(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    with servers.own_postgres() as server, servers.fresh_database(server.url) as url:

        async def outage() -> None:
            await asyncio.to_thread(server.stop)

        async def back() -> None:
            server.start()  # it would end with a thread that started it

        told = run(survived(tmp_path, store_url, url, outage, back))
        figure(f"PostgreSQL stopped and started: {told}")


def test_requests_go_on_while_sqlite_is_locked(
    tmp_path: Path, store_url: str, sqlite_url: str, figure: Callable[[str], None]
) -> None:
    path = sqlalchemy.make_url(sqlite_url).database
    locking = sqlite3.connect(str(path), isolation_level=None, timeout=10, check_same_thread=False)

    async def outage() -> None:
        await asyncio.to_thread(locking.execute, "BEGIN EXCLUSIVE")

    async def back() -> None:
        locking.execute("ROLLBACK")

    told = run(survived(tmp_path, store_url, sqlite_url, outage, back))
    locking.close()
    figure(f"SQLite locked by somebody: {told}")


def _waiting(store_url: str) -> int:
    with redis.Redis.from_url(store_url) as store:
        return int(store.xlen(keys.journal("s00")))


@pytest.mark.parametrize(
    "bound", [{"LEDGER_AWAY_SECONDS": "1"}, {"JOURNAL_BYTES": "16384"}], ids=["time", "bytes"]
)
def test_when_the_ledger_is_away_for_too_long_requests_are_refused_until_it_is_back(
    tmp_path: Path, store_url: str, bound: dict[str, str]
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, **bound) as house,
        ):
            world = await furnish(house, {"base_url": backend.base_url})
            served = 0
            while (answer := await house.ask(world.secret, **BODY)).status_code == 200:
                served += 1
                await asyncio.sleep(0.02)
            assert served
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "journal_unavailable"
            assert int(answer.headers["retry-after"]) >= 5
            waiting = _waiting(store_url)
            for _ in range(5):
                assert (await house.ask(world.secret, **BODY)).status_code == 503
            assert _waiting(store_url) == waiting, "who is refused does not make it any worse"
            assert len(await ledger_rows(house)) == len(backend.book) == served
            while (await house.ask(world.secret, **BODY)).status_code != 200:
                await asyncio.sleep(0.05)

    run(scenario())
