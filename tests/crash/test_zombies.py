"""A worker that was stopped until another machine had ended its holds, and then goes on."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway.stores.redis import keys
from gateway.stores.sql.engine import reading
from gateway.stores.sql.tables import usage_rows
from tests import servers
from tests.crash.house import CrashHouse, crash_house
from tests.crash.laws import TAG, check
from tests.running import run


@pytest.fixture
def home() -> Iterator[Path]:
    with servers.short_directory("mh-zombie-") as path:
        yield path


def test_its_late_truth_takes_the_estimate_back(
    home: Path, store_url: str, sqlite_url: str
) -> None:
    async def scenario() -> None:
        async with crash_house(home / "ours", store_url, sqlite_url) as house:
            await house.start_jobs(home=home / "theirs")
            worker = await house.start_worker()
            asking = asyncio.create_task(house.ask("lasting"))
            while not any(entry.generated_tokens > 8 for b in house.backends for entry in b.book):
                await asyncio.sleep(0.01)
            worker.send(signal.SIGSTOP)
            while await house.store.zcard(keys.holds(TAG)):
                await asyncio.sleep(0.02)
            while await _holds(house) != ["estimated"]:  # booked before the truth comes to light
                await asyncio.sleep(0.02)
            worker.send(signal.SIGCONT)
            reply = await asking
            await worker.stop()
            assert house.jobs is not None
            await house.jobs.stop()
            await house.start_jobs()

            found = await check(house.place, 0, [reply])

            assert found.violations == []
            assert reply.whole
            assert (found.estimated, found.late) == (1, 2)
            assert sorted(await _holds(house)) == ["absent", "estimated", "reversed"]

    run(scenario())


async def _holds(house: CrashHouse) -> list[str]:
    def read() -> list[str]:
        with reading(house.engine) as connection:
            return list(connection.scalars(select(usage_rows.c.hold)))

    return await asyncio.to_thread(read)
