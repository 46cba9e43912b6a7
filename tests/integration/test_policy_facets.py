"""Policies that depend on the request: its tags, the time of day, stream or not, its size."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]
LONG = [{"role": "user", "content": "hello there " * 400}]


async def two_backends(house: House, eu: ScriptedBackend, us: ScriptedBackend) -> World:
    """The one in the US is cheaper: everything goes there unless a policy says otherwise."""
    world = await furnish(
        house,
        {"name": "eu", "region": "eu", "jurisdictions": ["DE"], "base_url": eu.base_url},
        {"name": "us", "region": "us", "jurisdictions": ["US"], "base_url": us.base_url},
    )
    for backend, amount in zip(world.backends, ("9", "1"), strict=True):
        for meter in ("input", "output"):
            await house.make(
                "prices", book="cost", backend_id=backend["id"], upstream_model="m", meter=meter,
                amount_per_million=amount, currency="USD", effective_from="2026-01-01T00:00:00Z",
            )  # fmt: skip
    return world


async def kept_in_the_eu(house: House, world: World, **match: Any) -> None:
    await house.policy(
        name="eu",
        scope={"team": world.squad["id"]},
        match=match,
        require={"residency": ["EU"]},
    )
    await house.in_force()


async def region(house: House, world: World, tags: str = "", **body: Any) -> str:
    """Where a request was served."""
    headers = {"authorization": f"Bearer {world.secret}"}
    if tags:
        headers["x-meterhouse-tags"] = tags
    asked = {"model": "chat", "messages": HELLO} | body
    answer = await house.client.post("/v1/chat/completions", json=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-meterhouse-backend-region"]


def test_a_tagged_request_is_narrowed_and_an_untagged_one_is_not(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as eu,
            ScriptedBackend() as us,
            open_house(tmp_path, store_url, JURISDICTION="DE") as house,
        ):
            world = await two_backends(house, eu, us)
            await kept_in_the_eu(house, world, tags={"data": ["personal", "health"]})

            assert await region(house, world) == "us"
            assert await region(house, world, "data=public") == "us"
            assert await region(house, world, "job=x,data=health") == "eu"
            assert [len(eu.book), len(us.book)] == [1, 2]

    run(scenario())


def test_streams_and_long_prompts_meet_documents_of_their_own(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as eu,
            ScriptedBackend() as us,
            open_house(tmp_path, store_url, JURISDICTION="DE") as house,
        ):
            world = await two_backends(house, eu, us)
            await kept_in_the_eu(house, world, stream=True, input_tokens={"at_least": 500})

            assert await region(house, world, stream=True) == "us"
            assert await region(house, world, messages=LONG) == "us"
            assert await region(house, world, stream=True, messages=LONG) == "eu"
            assert await region(house, world, stream=True) == "us"

    run(scenario())


def test_a_document_applies_in_its_hours_on_the_tenants_clock(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as eu,
            ScriptedBackend() as us,
            open_house(tmp_path, store_url, JURISDICTION="DE") as house,
        ):
            world = await two_backends(house, eu, us)
            here = datetime.now(ZoneInfo(world.tenant["timezone"]))
            away = datetime.now(ZoneInfo("Asia/Tokyo"))  # at least seven hours ahead of it

            await kept_in_the_eu(house, world, hours=around(here))
            assert await region(house, world) == "eu"
            policy = (await house.look("policies"))["items"][0]
            changed = {
                "name": "eu",
                "scope": policy["scope"],
                "match": {"hours": around(away)},
                "require": {"residency": ["EU"]},
            }
            await house.admin.put(f"/policies/{policy['id']}", json=changed)
            await house.admin.post(f"/policies/{policy['id']}/activate", json={})
            await house.in_force()
            assert await region(house, world) == "us"

    run(scenario())


def around(now: datetime) -> dict[str, str]:
    """An hour each way, over midnight where it must be."""
    hour = timedelta(hours=1)
    return {"from": f"{now - hour:%H:%M}", "to": f"{now + hour:%H:%M}"}


def test_explain_decides_for_the_tags_and_the_time_it_is_told(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as eu,
            ScriptedBackend() as us,
            open_house(tmp_path, store_url, JURISDICTION="DE") as house,
        ):
            world = await two_backends(house, eu, us)
            await kept_in_the_eu(house, world, tags={"env": "prod"}, hours={"days": ["sat", "sun"]})

            async def explained(**asked: Any) -> tuple[str, Any]:
                body = {"key_id": world.key["id"], "model": "chat"} | asked
                answer = (await house.admin.post("/policies/explain", json=body)).json()
                first = answer["attempts"][0]["backend_id"]
                return first, answer["conditional"]

            # A Sunday in Berlin, where it is still Saturday in UTC, and a Monday.
            sunday, monday = "2026-11-21T23:30:00Z", "2026-11-22T23:30:00Z"
            in_eu, in_us = (backend["id"] for backend in world.backends)
            assert await explained(tags={"env": "prod"}, at=sunday) == (
                in_eu,
                [{"policy": "eu", "applies": True}],
            )
            for elsewhere in ({"at": sunday}, {"tags": {"env": "prod"}, "at": monday}):
                assert await explained(**elsewhere) == (
                    in_us,
                    [{"policy": "eu", "applies": False}],
                )

    run(scenario())
