"""A gateway in pieces: worker and jobs as real processes, every line to a store, a database or a
backend through a fault proxy, and two scripted backends whose books are the truth.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy
from litestar import Litestar
from redis.asyncio import Redis

from gateway.admin import problems
from gateway.admin.api import create_admin
from gateway.settings import Settings
from gateway.stores import lease_file, spooled
from gateway.stores.redis import keys
from gateway.stores.redis.client import open_client
from gateway.stores.sql.engine import migrate, open_engine
from gateway.wiring.admin import open_admin
from tests.crash.clients import REPLIED_WITHIN_S, Reply, ask
from tests.crash.laws import TAG, Place
from tests.crash.processes import Process, Started, listener, processes
from tests.fault_proxy import FaultProxy
from tests.scripted_backend import ScriptedBackend
from tests.servers import nobody

HOLD_SECONDS = 2
LEASE_SECONDS = 8


class CrashHouse:
    """What a cell needs. `worker_store`, `jobs_store`, `jobs_sql` and `lines` are the proxies."""

    def __init__(self, settings: Settings, started: Started, admin: httpx.AsyncClient) -> None:
        self.settings = settings
        self.admin = admin
        self.store: Redis = open_client(settings.redis_url)
        self.engine = open_engine(settings.database_url)
        self.backends = (ScriptedBackend(), ScriptedBackend())
        self.backend_ids: list[str] = []
        self.tenant_id = ""
        self.jobs: Process | None = None
        self.worker_store: FaultProxy
        self.jobs_store: FaultProxy
        self.jobs_sql: FaultProxy | None = None
        self.lines: tuple[FaultProxy, ...] = ()
        self.nobody: str  # where a backend would be
        self.client: httpx.AsyncClient
        self._started = started
        self._listener = listener()
        self._budgets: dict[str, dict[str, Any]] = {}  # as they were made, by id
        self._outage = "bounded"
        self.key_id = ""
        self._own: tuple[str, ...] = ()  # the budget and the limit of that key
        self._secret = ""

    @property
    def place(self) -> Place:
        books = (backend.book for backend in self.backends)
        by_id = dict(zip(self.backend_ids, books, strict=False))
        return Place(
            self.store,
            self.engine,
            self.settings.spool_dir,
            by_id,
            self._recount,
            key_id=self.key_id,
            of_key=self._own,
        )

    @property
    def on_postgres(self) -> bool:
        return self.jobs_sql is not None

    async def start_admin(self, listening: socket.socket, points: str = "") -> Process:
        """A process of the admin plane, on a socket that outlives it."""
        fd = listening.fileno()
        environ = self._environ(self.worker_store, self.settings.database_url)
        words = ("serve", "--plane", "admin", "--fd", str(fd))
        return await self._started.start(*words, environ=environ, points=points, fd=fd)

    async def _recount(self) -> None:
        """The jobs look at every account when they begin."""
        if self.jobs is not None and self.jobs.alive:
            await self.jobs.stop()
        await self.start_jobs()

    async def start_worker(self, points: str = "") -> Process:
        fd = self._listener.fileno()
        environ = self._environ(self.worker_store, self.settings.database_url)
        words = ("serve", "--plane", "data", "--worker", "0", "--fd", str(fd))
        return await self._started.start(*words, environ=environ, points=points, fd=fd)

    async def start_jobs(self, points: str = "", home: Path | None = None) -> Process:
        """On another `home` they are of another machine: they see none of our spools."""
        url = self.settings.database_url
        if self.jobs_sql is not None:
            assert isinstance(self.jobs_sql.address, Path)
            directory = str(self.jobs_sql.address.parent)
            made = sqlalchemy.make_url(url).update_query_dict({"host": directory})
            url = made.render_as_string(hide_password=False)
        environ = self._environ(self.jobs_store, url)
        if home is not None:
            environ["METERHOUSE_HOME"] = str(home)
        self.jobs = await self._started.start("jobs", environ=environ, points=points)
        return self.jobs

    def _environ(self, store: FaultProxy, database_url: str) -> dict[str, str]:
        return {
            "METERHOUSE_HOME": str(self.settings.home),
            "METERHOUSE_REDIS_URL": f"redis://127.0.0.1:{store.port}",
            "METERHOUSE_DATABASE_URL": database_url,
            "METERHOUSE_WORKERS": "1",
            "METERHOUSE_HOLD_SECONDS": str(HOLD_SECONDS),
            "METERHOUSE_LEASE_SECONDS": str(LEASE_SECONDS),
            "METERHOUSE_DRAIN_SECONDS": "10",
            "METERHOUSE_ACCESS_LOG": "off",
        }

    async def ask(self, kind: str) -> Reply:
        return await ask(self.client, kind)

    async def forget_leases(self) -> None:
        """As when the leases of a killed process have run out."""
        async for key in self.store.scan_iter("mh:lease:*"):
            await self.store.delete(key)

    async def has_leases(self) -> None:
        """Returns when a worker may spend leases on every budget."""
        async with asyncio.timeout(60):
            while not any(
                len([one for one in lease_file.read(writer) if one.amount]) == len(self._budgets)
                for writer in spooled.writers(self.settings.spool_dir)
            ):
                await asyncio.sleep(0.02)

    async def end_leases(self) -> None:
        """As when an hour has passed since their worker was seen."""
        for member in await self.store.zrange(keys.leases(TAG), 0, -1):
            lease_id, _, account = member.decode().partition(" ")
            amount = int(await self.store.hget(account, f"lease:{lease_id}") or 0)
            await self.store.hdel(account, f"lease:{lease_id}")
            await self.store.hincrby(account, "leased", -amount)
            await self.store.zrem(keys.leases(TAG), member)

    async def leaves_a_lease(self) -> None:
        """One of a machine that is gone, and it was overdue long ago."""
        account = (await anext(self.store.scan_iter(f"mh:{{{TAG}}}:acct:*:m*"))).decode()
        await self.store.hincrby(account, "lease:data-9.gone/0", 7)
        await self.store.hincrby(account, "leased", 7)
        await self.store.zadd(keys.leases(TAG), {f"data-9.gone/0 {account}": 1})

    async def make(self, noun: str, **fields: Any) -> dict[str, Any]:
        answer = await self.admin.post(f"/{noun}", json=fields)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def outage(self, mode: str) -> None:
        """What the budgets do while the store does not answer; for processes started later."""
        if mode == self._outage:
            return
        for id_, budget in self._budgets.items():
            answer = await self.admin.put(f"/budgets/{id_}", json=budget | {"outage": mode})
            assert answer.status_code == 200, answer.text
        self._outage = mode

    def store_goes(self) -> None:
        """Out of the worker's reach; everybody else still has it."""
        self.worker_store.refuse = True
        self.worker_store.reset()

    def store_returns(self) -> None:
        self.worker_store.refuse = False

    async def furnish(self) -> None:
        """Budgets and limits on four levels; the first backend is the cheaper one."""
        tenant = await self.make("tenants", name="acme", currency="USD", timezone="Europe/Berlin")
        self.tenant_id = tenant["id"]
        team = await self.make("teams", tenant_id=tenant["id"], name="a", cost_center="1")
        squad = await self.make(
            "teams", tenant_id=tenant["id"], parent_id=team["id"], name="b", cost_center="2"
        )
        key = await self.make("keys", team_id=squad["id"], name="app")
        self.key_id, self._secret = key["id"], key["secret"]
        scopes = [
            {"tenant": tenant["id"]}, {"team": team["id"]}, {"team": squad["id"]},
            {"key": key["id"]},
        ]  # fmt: skip
        for scope in scopes:
            budget = {"scope": scope, "amount": "1000", "period": "month", "mode": "hard"}
            made = await self.make("budgets", **budget)
            self._budgets[made["id"]] = budget
            if "key" in scope:
                self._own = (made["id"],)
        for scope in (scopes[0], scopes[3]):
            made = await self.make(
                "limits", scope=scope, concurrent_requests=100, tokens_per_day=10_000_000
            )
        self._own += (made["id"],)
        for number, line in enumerate(self.lines):
            await self._backend(number, f"http://127.0.0.1:{line.port}/v1", f"0.{number + 1}")
        await self._backend(9, f"{self.nobody}/v1", "0.1")
        for name in ("chat", "sliced", "kept", "hedged", "shadowed"):
            await self._model(name, self.backend_ids[:2])
        await self._model("aside", self.backend_ids[1:2])
        lab = await self.make("keys", team_id=squad["id"], name="lab")
        await self._model("dead", self.backend_ids[2:])
        for document in (
            {"name": "cheap", "prefer": "cheapest"},
            {
                "name": "sliced",
                "match": {"models": ["sliced"]},
                "budget": {"hold": "sliced", "slice": 16},
            },
            {
                "name": "kept",
                "match": {"models": ["kept"]},
                "idempotency": {"store_answers": "on", "keep_seconds": 600},
            },
            {
                "name": "hedged",
                "match": {"models": ["hedged"]},
                "retries": {"hedge_after_ms": 100, "hedge_percent": 100},
            },
            {
                "name": "shadowed",
                "match": {"models": ["shadowed"]},
                "experiment": {
                    "name": "aside",
                    "shadow": {"model": "aside", "percent": 100, "payer": {"key": lab["id"]}},
                },
            },
        ):
            made = await self.make("policies", scope={"tenant": tenant["id"]}, **document)
            await self.admin.post(f"/policies/{made['id']}/activate", json={})
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self._listener.getsockname()[1]}",
            headers={"authorization": f"Bearer {self._secret}"},
            timeout=REPLIED_WITHIN_S,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def _backend(self, number: int, base_url: str, cost: str) -> None:
        made = await self.make(
            "backends", name=f"backend-{number}", dialect="openai", base_url=base_url,
            region="eu-central", jurisdictions=["DE"], placement="on_prem", max_concurrency=100,
        )  # fmt: skip
        self.backend_ids.append(made["id"])
        for meter in ("input", "output"):
            await self._price(
                book="cost", backend_id=made["id"], upstream_model="m", meter=meter, amount=cost
            )

    async def _model(self, name: str, backend_ids: list[str]) -> None:
        targets = [{"backend_id": id_, "upstream_model": "m", "weight": 1} for id_ in backend_ids]
        await self.make(
            "models", name=name, capabilities=["chat"], context_window=8192,
            max_output_tokens=4096, targets=targets,
        )  # fmt: skip
        for meter, amount in (("input", "3"), ("output", "15")):
            await self._price(book="charge", model=name, meter=meter, amount=amount)

    async def _price(self, amount: str, **fields: Any) -> None:
        await self.make(
            "prices", amount_per_million=amount, currency="USD",
            effective_from="2026-01-01T00:00:00Z", **fields,
        )  # fmt: skip

    async def close(self) -> None:
        await self.client.aclose()
        await self.store.aclose()
        self.engine.dispose()
        self._listener.close()


@contextlib.asynccontextmanager
async def crash_house(home: Path, store_url: str, database_url: str) -> AsyncIterator[CrashHouse]:
    """Furnished, with no process running yet. `home` must be short: sockets lie in it."""
    home.mkdir(parents=True, exist_ok=True)
    settings = Settings.from_env(
        {
            "METERHOUSE_HOME": str(home),
            "METERHOUSE_REDIS_URL": store_url,
            "METERHOUSE_DATABASE_URL": database_url,
        }
    )
    engine = open_engine(settings.database_url)
    await asyncio.to_thread(migrate, engine)
    engine.dispose()
    async with (
        contextlib.AsyncExitStack() as stack,
        processes(home) as started,
        open_admin(settings) as admin,
    ):
        api = Litestar(
            create_admin(admin.deps),
            openapi_config=None,
            logging_config=None,
            exception_handlers=problems.HANDLERS,
        )
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(api),
            base_url="http://admin/admin/v1",
            headers={"authorization": f"Bearer {admin.deps.admin_token}"},
        )
        house = CrashHouse(settings, started, await stack.enter_async_context(client))
        await _wired(house, stack, store_url, database_url)
        await house.furnish()
        try:
            yield house
        finally:
            await started.none_is_left()
            await house.close()


async def _wired(
    house: CrashHouse, stack: contextlib.AsyncExitStack, store_url: str, database_url: str
) -> None:
    store = Path(store_url.removeprefix("unix://"))
    house.worker_store = await stack.enter_async_context(FaultProxy(store))
    house.jobs_store = await stack.enter_async_context(FaultProxy(store))
    if database_url.startswith("postgresql"):
        directory = house.settings.home / "pg"
        directory.mkdir()
        name = ".s.PGSQL.5432"
        server = Path(str(sqlalchemy.make_url(database_url).query["host"])) / name
        house.jobs_sql = await stack.enter_async_context(FaultProxy(server, directory / name))
    house.nobody = stack.enter_context(nobody())
    for backend in house.backends:
        await stack.enter_async_context(backend)
    house.lines = tuple(
        [
            await stack.enter_async_context(FaultProxy(("127.0.0.1", backend.port)))
            for backend in house.backends
        ]
    )
