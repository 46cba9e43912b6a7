"""Several backends that take only so many requests: who goes where, and that it is booked there."""

import asyncio
from pathlib import Path

from tests.booked import ledger_rows
from tests.house import House, furnish, open_house
from tests.integration.test_fair_share import Scene
from tests.running import run
from tests.scripted_backend import ScriptedBackend


def test_who_goes_where_there_is_room_is_booked_there(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as cheap,
            ScriptedBackend() as dear,
            open_house(tmp_path, store_url) as house,
        ):
            one = {"max_concurrency": 1}
            world = await furnish(
                house, {"base_url": cheap.base_url} | one, {"base_url": dear.base_url} | one
            )
            for backend, amount in zip(world.backends, ("1", "2"), strict=True):
                for meter in ("input", "output"):
                    await house.make(
                        "prices", book="cost", backend_id=backend["id"], upstream_model="m",
                        meter=meter, amount_per_million=amount, currency="USD",
                        effective_from="2026-01-01T00:00:00Z",
                    )  # fmt: skip
            await house.in_force()
            it = Scene(house, world, cheap)
            for backend in (cheap, dear):
                backend.answering.clear()
            under_way = [asyncio.create_task(it.ask()) for _ in range(2)]
            while not (cheap.book and dear.book):
                await asyncio.sleep(0.005)
            for backend in (cheap, dear):
                backend.answering.set()
            await asyncio.gather(*under_way)

            booked = {row.request_id: row for row in await ledger_rows(house)}
            for backend, at, amount in zip((cheap, dear), world.backends, (1, 2), strict=True):
                (entry,) = backend.book
                row = booked[entry.request_id]
                assert (row.backend_id, row.attempt) == (at["id"], 0)
                used = row.input_tokens + row.output_tokens
                assert row.cost_picos == amount * 1_000_000 * used
                assert await kept(house, entry.request_id), "its decision is with its bill"

    run(scenario())


def test_nobody_is_sent_to_a_dearer_backend_while_the_cheap_one_has_room(
    tmp_path: Path, store_url: str
) -> None:
    """A worker that has no slots of it yet asks for them, however many come at once."""

    async def scenario() -> None:
        async with (
            ScriptedBackend() as first,
            ScriptedBackend() as second,
            open_house(tmp_path, store_url) as house,
        ):
            many = {"max_concurrency": 100}
            places = ({"placement": "on_prem"}, {"placement": "cloud"})
            urls = ({"base_url": each.base_url} for each in (first, second))
            fields = (url | place | many for url, place in zip(urls, places, strict=True))
            world = await furnish(house, *fields)
            tenant = {"tenant": world.tenant["id"]}
            await house.policy(name="near", scope=tenant, prefer=["on_prem", "cloud"])
            await house.in_force()
            it = Scene(house, world, first)
            asked = []
            for _ in range(20):
                asked.append(asyncio.create_task(it.ask()))
                await asyncio.sleep(0.001)
            answers = await asyncio.gather(*asked)

            assert {answer.status_code for answer in answers} == {200}
            assert (len(first.book), len(second.book)) == (20, 0)

    run(scenario())


async def kept(house: House, request_id: str) -> bool:
    return bool((await house.look(f"decisions?request_id={request_id}"))["items"])
