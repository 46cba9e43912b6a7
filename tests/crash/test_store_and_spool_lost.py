"""A machine and the store are lost together, spool and counters: what is gone is what the decision
on store loss says, and no more.

CRASH_ROUNDS says how often; the bound is measured each time.
"""

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway.stores.sql.engine import reading
from gateway.stores.sql.tables import usage_rows
from tests import servers
from tests.crash.clients import Reply
from tests.crash.house import CrashHouse, crash_house
from tests.crash.laws import at_rest, check
from tests.running import run
from tests.scripted_backend import Entry

# What ended so long before the loss is in the ledger. It takes 0.2 s as a rule: these machines are
# busy with everything at once.
BOOKED_WITHIN_S = 2.0
CLIENTS = 8
KINDS = ("plain", "plain", "stream", "lasting")


@pytest.fixture
def home() -> Iterator[Path]:
    with servers.short_directory("mh-lost-") as path:
        yield path


@dataclass
class Load:
    """Clients that ask and ask. `ended`: when each answer was whole, by the monotonic clock."""

    house: CrashHouse
    replies: list[Reply] = field(default_factory=list)
    ended: dict[str, float] = field(default_factory=dict)
    over: bool = False

    async def go_on(self) -> None:
        await asyncio.gather(*(self._one(random.Random(seed)) for seed in range(CLIENTS)))

    async def _one(self, draw: random.Random) -> None:
        while not self.over:
            reply = await self.house.ask(draw.choice(KINDS))
            self.replies.append(reply)
            if reply.whole:
                self.ended[reply.request_id] = time.monotonic()
            else:
                await asyncio.sleep(0.05)


@dataclass
class Lost:
    """Of all rounds. Tokens are those that backends generated and nobody is billed for."""

    answers: int = 0
    under_way: int = 0
    tokens: int = 0
    oldest_s: float = 0.0  # of the answers lost, how long before the loss it had ended


@pytest.mark.parametrize(
    ("rounds", "database"),
    [
        (1, "sqlite_url"),
        pytest.param(10, "sqlite_url", marks=pytest.mark.long),
        pytest.param(10, "postgres_url", marks=pytest.mark.long),
    ],
)
def test_only_what_the_ledger_had_not_heard_of_is_lost(
    home: Path,
    request: pytest.FixtureRequest,
    figure: Callable[[str], None],
    rounds: int,
    database: str,
) -> None:
    rounds = int(os.environ.get("CRASH_ROUNDS", rounds))
    lost, rows = Lost(), 0

    async def scenario() -> None:
        nonlocal rows
        url = request.getfixturevalue(database)
        with servers.store_server(servers.valkey_binary(), appendonly="yes") as store:
            async with crash_house(home / "h", store.url, url) as house:
                for _ in range(rounds):
                    rows += await _round(house, store, lost)

    run(scenario(), within_s=60 * (rounds + 1))
    figure(
        f"machine and store lost together {rounds} times under {CLIENTS} clients, {rows} rows: lost"
        f" {lost.answers} answers, which had ended at most {lost.oldest_s * 1000:.0f} ms before"
        f" (documented: {BOOKED_WITHIN_S:.0f} s), and {lost.under_way} requests under way;"
        f" {lost.tokens} tokens in all, that nobody is billed for"
    )


async def _round(house: CrashHouse, store: servers.StoreServer, lost: Lost) -> int:
    """How many rows there are of it, after everything was lost and is in order again."""
    for backend in house.backends:
        backend.book.clear()
    since_us = int(time.time() * 1_000_000)
    worker, jobs = await house.start_worker(), await house.start_jobs()
    while not (await house.ask("plain")).whole:
        await asyncio.sleep(0.05)
    while not await asyncio.to_thread(_known, house, since_us):  # the jobs are at work
        await asyncio.sleep(0.02)
    load = Load(house)
    going = asyncio.create_task(load.go_on())
    while len(load.ended) < 40:
        await asyncio.sleep(random.uniform(0.005, 0.1))
    worker.send(signal.SIGKILL)
    jobs.send(signal.SIGKILL)
    store.kill()
    at = time.monotonic()
    load.over = True
    await asyncio.gather(worker.ended(), jobs.ended())
    for left in (*house.settings.spool_dir.iterdir(), *store.directory.glob("append*")):
        shutil.rmtree(left)
    store.start(whole=False)
    worker = await house.start_worker()
    await house.start_jobs()
    await going
    while not (await house.ask("plain")).whole:
        await asyncio.sleep(0.05)
    await worker.stop()
    await at_rest(house.place)

    known = await asyncio.to_thread(_known, house, since_us)
    gone = [entry for b in house.backends for entry in b.book if entry.request_id not in known]
    _account(gone, load, at, lost)
    for backend in house.backends:
        backend.book[:] = [entry for entry in backend.book if entry.request_id in known]
    left = {entry.request_id for entry in gone}
    found = await check(
        house.place, since_us, [one for one in load.replies if one.request_id not in left]
    )
    assert found.violations == []
    assert found.estimated == 0, "nothing is known of what was under way"
    assert house.jobs is not None
    await house.jobs.stop()
    return found.rows


def _known(house: CrashHouse, since_us: int) -> set[str]:
    with reading(house.engine) as connection:
        query = select(usage_rows.c.request_id).where(usage_rows.c.admitted_at_us >= since_us)
        return set(connection.scalars(query))


def _account(gone: list[Entry], load: Load, at: float, lost: Lost) -> None:
    for entry in gone:
        lost.tokens += entry.generated_tokens
        ended = load.ended.get(entry.request_id)
        if ended is None:
            lost.under_way += 1
            continue
        lost.answers += 1
        lost.oldest_s = max(lost.oldest_s, at - ended)
    assert lost.oldest_s <= BOOKED_WITHIN_S
