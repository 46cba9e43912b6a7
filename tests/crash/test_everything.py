"""Kill -9 of everything at once, at random moments under load, again and again: the ledger is the
book of the backend all the same, and nothing stays held.

CRASH_ROUNDS says how often, CRASH_SEED repeats the moments and the requests of a run.
"""

import asyncio
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import msgspec
import pytest

from gateway.settings import Settings
from gateway.stores.redis.client import open_client
from gateway.stores.sql.engine import open_engine
from tests import servers
from tests.bench import house as furnished
from tests.bench.machine import family
from tests.crash.clients import Reply, ask
from tests.crash.laws import MOST_UNSEEN, Found, Place, check
from tests.e2e.house import READY, House
from tests.running import run
from tests.scripted_backend import Entry, backend_process

KINDS = ("plain", "plain", "stream", "stream", "counted", "long", "lasting", "keyed")
CLIENTS = 12


class Load:
    """Clients that ask and ask, whatever becomes of their answers."""

    def __init__(self, url: str, key: str, seed: int) -> None:
        self.replies: list[Reply] = []
        self._draw = random.Random(seed)
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {key}"},
            timeout=10,
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._over = False

    async def go_on(self) -> None:
        async with self._client:
            await asyncio.gather(*(self._one() for _ in range(CLIENTS)))

    def end(self) -> None:
        self._over = True

    async def _one(self) -> None:
        while not self._over:
            reply = await ask(self._client, self._draw.choice(KINDS), furnished.MODEL)
            self.replies.append(reply)
            if not reply.status:
                await asyncio.sleep(0.05)


@contextmanager
def free_ports() -> Iterator[tuple[int, int]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = one.getsockname()[1], two.getsockname()[1]
    yield ports


def started(home: Path, ports: tuple[int, int]) -> House:
    up = House(
        home,
        METERHOUSE_PORT=str(ports[0]),
        METERHOUSE_ADMIN_LISTEN=f"127.0.0.1:{ports[1]}",
        METERHOUSE_WORKERS="2",
        METERHOUSE_HOLD_SECONDS="3",
        METERHOUSE_ACCESS_LOG="off",
    )
    up.says(READY)
    return up


def kill_all(up: House) -> int:
    """Everything that `up` is, itself first; how many processes that were."""
    pids = family(up.process.pid)
    for pid in sorted(pids, key=lambda pid: pid != up.process.pid):
        with suppress(ProcessLookupError):  # it came to an end of its own just now
            os.kill(pid, signal.SIGKILL)
    up.process.wait(30)
    up.stop()
    return len(pids)


async def _rounds(home: Path, backend_url: str, rounds: int, seed: int) -> tuple[Found, Load, int]:
    draw = random.Random(seed)
    with free_ports() as ports:
        up = await asyncio.to_thread(started, home, ports)
        killed = 0
        try:
            token = (home / "admin-token").read_text().strip()
            port = httpx.URL(backend_url).port or 80
            key = await asyncio.to_thread(furnished.seed, up.url("admin"), token, port)
            load = Load(f"http://127.0.0.1:{ports[0]}", key, seed)
            going = asyncio.create_task(load.go_on())
            for _ in range(rounds):
                await asyncio.sleep(draw.uniform(0.2, 3.0))
                killed += await asyncio.to_thread(kill_all, up)
                up = await asyncio.to_thread(started, home, ports)
            await asyncio.sleep(1.0)
            load.end()
            await going
            return await _found(up, home, backend_url, load), load, killed
        finally:
            await asyncio.to_thread(up.stop)


async def _found(up: House, home: Path, backend_url: str, load: Load) -> Found:
    settings = Settings.from_env({"METERHOUSE_HOME": str(home)})
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{backend_url.removesuffix('/v1')}/__book", timeout=120)
    book = msgspec.json.decode(answer.content, type=list[Entry])
    with up.admin() as admin:
        (backend,) = admin.get("/backends").json()["items"]
    store, engine = open_client(settings.redis_url), open_engine(settings.database_url)
    try:
        books = {backend["id"]: book}
        place = Place(store, engine, settings.spool_dir, books, lambda: _jobs_anew(up), 2)
        return await check(place, 0, load.replies)
    finally:
        await store.aclose()
        engine.dispose()


async def _jobs_anew(up: House) -> None:
    os.kill(up.pid("jobs"), signal.SIGTERM)


@pytest.mark.long
def test_killed_as_a_whole_again_and_again_it_loses_and_doubles_nothing(
    figure: Callable[[str], None],
) -> None:
    rounds = int(os.environ.get("CRASH_ROUNDS", "20"))
    seed = int(os.environ.get("CRASH_SEED") or time.time_ns() % 1_000_000)
    print(f"CRASH_SEED={seed}")
    began = time.monotonic()
    with servers.short_directory("mh-all-") as home, backend_process() as backend_url:
        scenario = _rounds(home / "h", backend_url, rounds, seed)
        found, load, killed = run(scenario, within_s=60 + rounds * 30)
    ends = Counter("whole" if r.whole else r.error or "cut" for r in load.replies)
    figure(
        "\n".join(found.violations[:20])
        + f"seed {seed}: {rounds} times everything killed ({killed} processes),"
        f" {len(load.replies)} requests {dict(ends)}; {found.rows} rows, {found.estimated}"
        f" estimated ({found.phantoms} of what no backend did), {found.late} late; at most"
        f" {found.unbilled} tokens of a cut answer not billed (bound: {MOST_UNSEEN}); held or"
        f" waiting afterwards: {found.unrest or 'nothing'}; {len(found.violations)} violations;"
        f" {time.monotonic() - began:.0f} s"
    )
    assert found.violations == []
