"""A churn seen from inside the worker: tasks, places in the pool, calls to the store, what counts
as in flight.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop

from tests.house import House, World, furnish, open_house
from tests.loops import run_on
from tests.scripted_backend import backend_process
from tests.streams.churner import Job, Result

SECONDS = 4.0


async def _churn(house: House, key: str, **options: float) -> Result:
    host, port = house.url.removeprefix("http://").split(":")
    job = Job(host=host, port=int(port), key=key, model="chat", **options)  # type: ignore[arg-type]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.streams.churner",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(msgspec.json.encode(job) + b"\n")
    return msgspec.json.decode(out, type=Result)


async def _budgeted(house: House, backend_url: str) -> World:
    world = await furnish(house, {"base_url": backend_url})
    for scope in ({"team": world.team["id"]}, {"key": world.key["id"]}):
        await house.make("budgets", scope=scope, amount="1000", period="month")
    await house.make("limits", scope={"key": world.key["id"]}, concurrent_requests=200)
    await house.in_force()
    return world


def test_a_churn_leaves_no_task_no_place_and_no_call_behind(tmp_path: Path, store_url: str) -> None:
    async def story() -> None:
        async with open_house(tmp_path, store_url) as house:
            world = await _budgeted(house, backend_url)
            plane, transport = house.data.plane, house.data.transport
            assert (await _churn(house, world.secret, seconds=0.5)).failures == {}
            await house.settled()
            await _becomes(lambda: not plane.holds.busy)
            tasks = len(asyncio.all_tasks())

            churn = await _churn(house, world.secret, seconds=SECONDS)

            assert churn.failures == {}
            assert all(churn.left.values())
            await house.settled()
            await _becomes(lambda: not plane.holds.busy)
            await _becomes(lambda: transport.totals().busy == 0)
            assert transport.totals().waiting == 0
            await _becomes(lambda: len(asyncio.all_tasks()) <= tasks)
            assert {budget["held"] for budget in (await house.look("budgets"))["items"]} == {"0"}
            assert all(not seat.live.in_flight for seat in plane.backends.seats().values())
            assert all(not seat.live.in_flight_tokens for seat in plane.backends.seats().values())

    with backend_process() as backend_url:
        run_on(uvloop.new_event_loop, story())


async def _becomes(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)
