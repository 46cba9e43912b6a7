"""Budgets in mode `bounded` while the quota store is away: what was leased beforehand is served,
and no more; no cap is passed before, meanwhile or after, and every answer is booked once.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from gateway.dataplane.leases import Leases
from gateway.jobs import reap_leases, rebuild_counters, replay_spool
from gateway.stores import lease_file
from gateway.stores.redis import keys
from gateway.wiring.jobs import open_jobs
from tests import servers
from tests.holding import TAG
from tests.integration.test_outage import COST, Scene, scene
from tests.running import run
from tests.workers import another_worker


def leases_of(it: Scene) -> Leases:
    return it.house.data.plane._outage.leases


async def lent(it: Scene, least: int = COST) -> int:
    """Waits until this worker may spend so much of every account it has a lease of; the least."""
    while True:
        found = [lease.amount for lease in leases_of(it).book.leases.values()]
        if found and min(found) >= least:
            return min(found)
        await asyncio.sleep(0.02)


def leased(url: str) -> int:
    """What all workers have of all accounts, by the store."""
    with redis.Redis.from_url(url) as client:
        names = list(client.scan_iter(f"mh:{{{TAG}}}:acct:*"))
        return sum(int(client.hget(name, "leased") or 0) for name in names)


async def none_leased(it: Scene, url: str) -> None:
    """Returns once every lease was given back."""
    await leases_of(it).end()
    while leased(url):
        await asyncio.sleep(0.02)


def test_what_was_leased_is_served_without_the_store_and_then_no_more(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            budget = await it.budget("bounded", "4")
            assert {a.status_code for a in [await it.ask() for _ in range(4)]} == {200}
            amount = await lent(it)
            assert COST <= amount <= 9 * COST  # a quarter of the 3.6 that were left
            it.store_goes()
            answers = await asyncio.gather(*(it.ask() for _ in range(20)))
            served = [a for a in answers if a.status_code == 200]
            assert len(served) == amount // COST
            refused = {a.json()["error"]["code"] for a in answers if a.status_code != 200}
            assert refused == {"quota_unavailable"}
            admitted = it.house.data.plane._outage.admitted
            assert admitted == {("lease",): len(served), ("open",): 0}
            await it.store_returns()
            await it.house.settled()
            await it.agree(budget, f"{(4 + len(served)) / 10:g}")
            await none_leased(it, store_url)

    run(scenario())


def test_every_bounded_budget_of_the_path_must_have_a_lease(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            await it.budget("bounded", "100")
            await it.budget("bounded", "0.4", "key")  # a quarter of what is left buys nothing
            assert (await it.ask()).status_code == 200
            while len(leases_of(it)._written or ()) != 1:
                await asyncio.sleep(0.02)
            await lent(it)
            it.store_goes()
            assert (await it.ask()).status_code == 503
            assert len(it.backend.book) == 1

    run(scenario())


def test_leases_never_narrow_what_the_store_would_grant(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url, WORKERS="2") as it:
            budget = await it.budget("bounded", "2")
            async with another_worker(it.house, 1) as other:
                for _ in range(2):
                    assert (await it.ask()).status_code == 200
                    assert (await it.ask(client=other.client)).status_code == 200
                await lent(it)
                while leased(store_url) < 2 * COST:
                    await asyncio.sleep(0.02)
                answers = await asyncio.gather(*(it.ask() for _ in range(20)))
                assert [a.status_code for a in answers].count(200) == 16
                refused = {a.json()["error"]["code"] for a in answers if a.status_code != 200}
                assert refused == {"insufficient_quota"}
                await it.house.settled()
            await it.agree(budget, "2")

    run(scenario())


def test_a_sliced_stream_is_not_cut_for_what_is_leased(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            await it.house.policy(
                name="s",
                scope={"tenant": it.world.tenant["id"]},
                budget={"hold": "sliced", "slice": 16},
            )
            await it.budget("bounded", "0.13")
            assert (await it.ask(max_tokens=16)).status_code == 200
            await it.house.settled()
            assert await lent(it, 1) >= 16 * COST // 100  # 0.114 are left, a quarter is leased
            answer = await it.ask(stream=True)  # costs 0.1
            assert answer.status_code == 200
            assert "insufficient_quota" not in answer.text
            assert it.backend.book[-1].generated_tokens == 100

    run(scenario())


def test_a_worker_that_dies_while_it_spends_is_billed_and_its_rest_given_back(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            budget = await it.budget("bounded", "8")
            async with another_worker(it.house, 1) as worker:
                assert (await it.ask(client=worker.client)).status_code == 200
                while leased(store_url) < 3 * COST:
                    await it.ask(client=worker.client)
                    await asyncio.sleep(0.1)
                for spool in (it.house.settings.spool_dir).iterdir():
                    while spool.name.startswith("data-1") and not lease_file.read(spool):
                        await asyncio.sleep(0.02)
                it.store_goes()
                before = len(it.backend.book)
                assert [(await it.ask(client=worker.client)).status_code for _ in range(2)] == [
                    200,
                    200,
                ]
                os.kill(worker.process.pid, signal.SIGKILL)
                worker.process.wait()
            await it.store_returns()
            assert len(await it.booked()) == before + 2
            async with open_jobs(it.house.settings, "jobs-3") as deps:
                for _ in range(2):
                    await replay_spool.run(deps, asyncio.Event())
            assert leased(store_url) == 0
            await it.agree(budget, f"{(before + 2) / 10:g}")

    run(scenario())


def test_a_rebuild_sets_aside_what_a_worker_that_is_cut_off_may_be_spending(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            budget = await it.budget("bounded", "4")
            assert {a.status_code for a in [await it.ask() for _ in range(4)]} == {200}
            amount = await lent(it)
            await it.house.settled()
            it.store_goes()
            assert (await it.ask()).status_code == 200
            await it.house.settled()
            with redis.Redis.from_url(store_url) as client:
                client.flushall()
            direct = _direct(it, store_url)
            async with open_jobs(direct, "jobs-1") as deps:
                await rebuild_counters.run(deps, asyncio.Event())
            assert leased(store_url) == amount - COST  # one of it was spent, and is posted
            assert (await it.ask()).status_code == 200  # still cut off
            await it.store_returns()
            await it.house.settled()
            await none_leased(it, store_url)
            await it.agree(budget, "0.6")

    run(scenario())


def _direct(it: Scene, store_url: str) -> Any:
    return msgspec.structs.replace(it.house.settings, redis_url=store_url)


def test_against_a_store_that_is_another_one_nothing_leased_is_spent(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            await it.budget("bounded", "4")
            assert {a.status_code for a in [await it.ask() for _ in range(4)]} == {200}
            await lent(it)
            with redis.Redis.from_url(store_url) as client:
                epoch = client.get(keys.epoch(TAG))
                client.set(keys.epoch(TAG), epoch.replace(b"open:1:", b"open:2:"))
                assert (await it.ask()).status_code == 200  # learns of it
            it.store_goes()
            assert (await it.ask()).status_code == 503

    run(scenario())


def test_leases_that_are_nobodys_are_ended_when_they_are_overdue(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            await it.budget("bounded", "4")
            assert {a.status_code for a in [await it.ask() for _ in range(4)]} == {200}
            await lent(it)
            with redis.Redis.from_url(store_url) as client:
                (account,) = {
                    member.decode().partition(" ")[2]
                    for member in client.zrange(keys.leases(TAG), 0, -1)
                }
                for name in ("data-9.gone/0", f"{it.house.data.spool.name}/99"):
                    client.hincrby(account, f"lease:{name}", 7)
                    client.hincrby(account, "leased", 7)
                    client.zadd(keys.leases(TAG), {f"{name} {account}": 1})
            async with open_jobs(it.house.settings, "jobs-1") as deps:
                assert await reap_leases.reap(deps, TAG, lost_ms=2**52) == 1
                assert await reap_leases.reap(deps, TAG) == 1
                assert await reap_leases.reap(deps, TAG) == 0
            await none_leased(it, store_url)

    run(scenario())


@pytest.mark.parametrize("seconds", ["0", "300"])
def test_leases_may_be_switched_off(tmp_path: Path, store_url: str, seconds: str) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url, LEASE_SECONDS=seconds) as it:
            await it.budget("bounded", "100")
            assert (await it.ask()).status_code == 200
            if seconds == "0":
                await leases_of(it).look()
            else:
                await lent(it)
            it.store_goes()
            assert (await it.ask()).status_code == (200 if seconds != "0" else 503)

    run(scenario())


class Load:
    """Clients that never stop asking, each its own worker of the house."""

    def __init__(self, it: Scene, url: str, clients: list[Any]) -> None:
        self.it, self.url, self.clients = it, url, clients
        self.statuses: list[tuple[float, int]] = []
        self.pause_s = 0.15  # between the requests of one client
        self.most = 0  # posted + held + leased, whenever we looked
        self._over = asyncio.Event()

    async def ask_on(self, client: Any) -> None:
        while not self._over.is_set():
            answer = await self.it.ask(client=client)
            self.statuses.append((time.monotonic(), answer.status_code))
            await asyncio.sleep(self.pause_s)

    async def watch(self) -> None:
        """Past the proxy; a store that is killed has nothing to say."""
        with redis.Redis.from_url(self.url) as client:
            while not self._over.is_set():
                with contextlib.suppress(redis.RedisError):
                    self.most = max(self.most, *map(_all_of, _accounts(client)))
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.ask_on(client)) for client in self.clients]
        tasks.append(asyncio.create_task(self.watch()))
        try:
            yield
        finally:
            self._over.set()
            await asyncio.gather(*tasks)

    def served(self, since: float, until: float) -> list[float]:
        return [at for at, status in self.statuses if status == 200 and since <= at < until]


def _accounts(client: redis.Redis) -> list[Any]:
    names = list(client.scan_iter(f"mh:{{{TAG}}}:acct:*"))
    return [client.hmget(name, "posted", "held", "leased") for name in names] or [(0, 0, 0)]


def _all_of(figures: Any) -> int:
    return sum(int(one or 0) for one in figures)


async def _until(seen: Callable[[], bool]) -> None:
    while not seen():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("goes", ["killed", "blackhole"])
def test_no_cap_is_passed_by_three_workers_whose_store_goes_and_comes_back(
    tmp_path: Path, figure: Callable[[str], None], goes: str
) -> None:
    async def scenario(store: servers.StoreServer) -> None:
        async with (
            scene(tmp_path, store.url, WORKERS="3", STORE_TIMEOUT_MS="1000") as it,
            contextlib.AsyncExitStack() as on,
        ):
            # Whole answers alone: one that is cut to what the leases leave would cost less.
            whole = {"scope": {"tenant": it.world.tenant["id"]}, "budget": {"clamp": "off"}}
            await it.house.policy(name="whole", **whole)
            budget = await it.budget("bounded", "24")
            others = [await on.enter_async_context(another_worker(it.house, n)) for n in (1, 2)]
            jobs = on.enter_context(_jobs(it))
            load = Load(it, store.url, [it.house.client, *(w.client for w in others)] * 2)
            async with load.going_on():
                await _until(lambda: leased(store.url) >= 9 * COST)
                load.pause_s, left = 0.05, time.monotonic()
                await (_kill(it, store) if goes == "killed" else _blackhole(it))
                await asyncio.sleep(4)
                back = time.monotonic()
                if goes == "killed":
                    store.start(whole=False)
                it.proxy.calm()
                it.proxy.reset()  # open connections lack what was swallowed
                await _until(lambda: bool(load.served(back + 0.2, back + 60)))
                again = load.served(back + 0.2, back + 60)[0] - back
                while 429 not in {status for _, status in load.statuses[-6:]}:
                    await asyncio.sleep(0.05)
            during = load.served(left, back)
            await it.house.settled()
            jobs.terminate()
            await asyncio.to_thread(jobs.wait)  # what is between them and the store is in this loop
            for worker in others:
                await worker.stop()
            await it.store_returns()
            await it.agree(budget, "24")
            await none_leased(it, store.url)
            assert during
            assert load.most <= 240 * COST
            assert len(it.backend.book) == 240
            figure(
                f"{goes}: 3 workers served {len(during)} requests without the store, the last"
                f" {max(during) - left:.1f} s after it went, and the store's again {again:.1f} s"
                f" after it was back; 240 answers of a budget of 240; posted + held + leased: at"
                f" most {load.most / COST:g}"
            )

    with servers.store_server(servers.valkey_binary(), appendonly="yes") as store:
        run(scenario(store))


async def _kill(it: Scene, store: servers.StoreServer) -> None:
    store.kill()
    it.proxy.reset()


async def _blackhole(it: Scene) -> None:
    it.proxy.blackhole = True


@contextlib.contextmanager
def _jobs(it: Scene) -> Iterator["subprocess.Popen[bytes]"]:
    settings = it.house.settings
    environ = os.environ | {
        "METERHOUSE_HOME": str(settings.home),
        "METERHOUSE_REDIS_URL": settings.redis_url,
        "METERHOUSE_DATABASE_URL": settings.database_url,
        "METERHOUSE_ACCESS_LOG": "off",
    }
    process = subprocess.Popen([sys.executable, "-P", "-m", "gateway", "jobs"], env=environ)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)
