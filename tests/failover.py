"""A gateway with its jobs on a store of several servers, and tenants that keep asking while one of
those servers is lost. Every answer costs 0.1, so what a tenant may spend is a number of answers:
the backend's book alone shows whether it was ever more.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import func, select

from gateway.jobs.deps import JobDeps
from gateway.jobs.runner import jobs_for, run_jobs
from gateway.stores.redis import backlog
from gateway.stores.sql.engine import open_engine, reading
from gateway.stores.sql.tables import tenants, usage_rows
from gateway.wiring.jobs import open_jobs
from tests.house import House, furnish, open_house
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

ANSWER_NANOS = 10**8
HOLD_SECONDS = 5
REFUSED_PAUSE_S = 0.02  # as a client that heeds retry-after, in a hurry


class Asked(msgspec.Struct, frozen=True):
    """One request: when it was sent, by the monotonic clock, and what came back."""

    at: float
    status: int


class Spender:
    """One tenant with a budget, and clients that spend it until they are refused for good."""

    def __init__(self, house: House, name: str, tag: str, secret: str, budget: str) -> None:
        self.house, self.name, self.tag = house, name, tag
        self.asked: list[Asked] = []
        self._secret = secret
        self._budget = budget

    async def spend(self, clients: int) -> None:
        """Until the budget is used up."""
        await asyncio.gather(*(self._client() for _ in range(clients)))

    async def _client(self) -> None:
        while True:
            at = time.monotonic()
            said = [{"role": "user", "content": self.name}]
            answer = await self.house.ask(self._secret, model="chat", messages=said, max_tokens=100)
            self.asked.append(Asked(at, answer.status_code))
            if answer.status_code == 429 and (await self.standing())[1] == "0":
                return  # what a lost request held would come back
            if answer.status_code != 200:
                await asyncio.sleep(REFUSED_PAUSE_S)

    @property
    def served(self) -> int:
        return sum(one.status == 200 for one in self.asked)

    @property
    def last_served(self) -> float:
        """When the last request that was served was sent."""
        return max(one.at for one in self.asked if one.status == 200)

    def served_since(self, moment: float) -> int:
        return sum(one.status == 200 and one.at > moment for one in self.asked)

    async def standing(self) -> tuple[str, str]:
        """What the budget shows as spent and held."""
        shown = await self.house.look(f"budgets/{self._budget}")
        return shown["spent"], shown["held"]

    def back_after_ms(self, lost: float) -> int:
        """How long after that moment the first request was sent that was served."""
        served = [one.at for one in self.asked if one.status == 200 and one.at > lost]
        return round((min(served) - lost) * 1000)

    def longest_gap_ms(self, since: float, until: float) -> int:
        """The longest time in which no request was sent that was served."""
        served = [one.at for one in self.asked if one.status == 200 and since < one.at < until]
        return round(max(b - a for a, b in pairwise([since, *sorted(served), until])) * 1000)


class Scene:
    """The gateway, its jobs, its tenants and the one backend."""

    def __init__(self, house: House, backend: ScriptedBackend, deps: JobDeps) -> None:
        self.house, self.backend, self.deps = house, backend, deps
        self.spenders: list[Spender] = []

    async def tenant(self, amount: str, outage: str = "strict") -> Spender:
        """One more, with a monthly budget: by default of the kind that nobody leases money of, so
        that it is served when the store is, and not before.
        """
        name = f"tenant-{len(self.spenders)}"
        tenant = await self.house.make("tenants", name=name, currency="USD", timezone="UTC")
        team = await self.house.make("teams", tenant_id=tenant["id"], name="t", cost_center="1")
        key = await self.house.make("keys", team_id=team["id"], name="app")
        budget = await self.house.make(
            "budgets", scope={"team": team["id"]}, amount=amount, period="month", outage=outage
        )
        await self.house.in_force()
        made = Spender(self.house, name, self._tag(tenant["id"]), key["secret"], budget["id"])
        self.spenders.append(made)
        return made

    def _tag(self, tenant_id: str) -> str:
        with reading(self.deps.engine) as connection:
            found = connection.scalar(select(tenants.c.shard).where(tenants.c.id == tenant_id))
            return str(found)

    async def until(self, true: Callable[[], Any], within_s: float = 120) -> None:
        async with asyncio.timeout(within_s):
            while not true():
                await asyncio.sleep(0.01)

    async def closed(self) -> None:
        """Nothing is on its way any more."""
        await self.house.settled()
        async with asyncio.timeout(120):
            while self.house.data.plane.holds.busy or self.house.data.plane._settler.waiting:
                await asyncio.sleep(0.01)
        await self.booked_up()

    async def booked_up(self) -> None:
        """Nothing is held of these tenants, and everything of theirs is in the ledger."""
        async with asyncio.timeout(120):
            while any([(await each.standing())[1] != "0" for each in self.spenders]):
                await asyncio.sleep(0.05)
            channels = self.house.data.channels
            while any([(await backlog.journal(channels, one.tag))[1] for one in self.spenders]):
                await asyncio.sleep(0.05)

    def answered(self) -> Counter[str]:
        """What the backend generated, by tenant: its own book."""
        for entry in self.backend.book:
            if entry.generated_tokens != 100:
                raise AssertionError(f"an answer of {entry.generated_tokens} tokens")
        return Counter(entry.body["messages"][0]["content"] for entry in self.backend.book)

    def booked(self) -> dict[str, tuple[int, int]]:
        """How many rows each tenant has in the ledger, and what they add up to, in nanos."""
        counted = (
            select(tenants.c.name, func.count(), func.sum(usage_rows.c.counter_nanos))
            .join_from(usage_rows, tenants, usage_rows.c.tenant_id == tenants.c.id)
            .group_by(tenants.c.name)
        )
        engine = open_engine(self.house.settings.database_url)
        with reading(engine) as connection:
            found = {row[0]: (int(row[1]), int(row[2])) for row in connection.execute(counted)}
        engine.dispose()
        return found

    def agree(self, each: int) -> None:
        """Every spender had `each` answers by the backend's book, which is all of its budget, and
        there is one row for each of them.
        """
        answered, booked = self.answered(), self.booked()
        due = {one.name: each for one in self.spenders}
        if answered != due or booked != {one: (n, n * ANSWER_NANOS) for one, n in due.items()}:
            raise AssertionError(f"booked {booked}, answered {answered}, due {due}")


@contextlib.asynccontextmanager
async def scene(home: Path, store_url: str, database_url: str = "") -> AsyncIterator[Scene]:
    """On a store that may be new: its first epochs are the jobs' to publish, as everywhere."""
    overrides = {"DATABASE_URL": database_url} if database_url else {}
    overrides |= {"HOLD_SECONDS": str(HOLD_SECONDS), "STORE_TIMEOUT_MS": "1000"}
    async with ScriptedBackend() as backend, open_house(home, store_url, **overrides) as house:
        backend.script = Script(tokens=100, delay_ms=20)
        async with open_jobs(house.settings, "jobs-1") as deps:
            stop = asyncio.Event()
            working = asyncio.create_task(run_jobs(deps, stop, jobs_for(HOLD_SECONDS * 1000)))
            await furnish(house, {"base_url": backend.base_url}, charge=("0", "1000"))
            try:
                yield Scene(house, backend, deps)
            finally:
                stop.set()
                await working
