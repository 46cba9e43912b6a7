"""A draft is tried on what was decided before; the version in force changes nothing of it."""

import asyncio
from pathlib import Path
from typing import Any

from tests.booked import ledger_rows
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]


async def ask(house: House, world: World, **headers: str) -> None:
    answer = await house.client.post(
        "/v1/chat/completions",
        json={"model": "chat", "messages": HELLO, "max_tokens": 50},
        headers={"authorization": f"Bearer {world.secret}"} | headers,
    )
    assert answer.status_code in {200, 403}, answer.text


async def replayed(house: House, policy_id: str, **more: Any) -> dict[str, Any]:
    answer = await house.admin.post("/policies/replay", json={"policy_id": policy_id} | more)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def draft(house: House, policy: dict[str, Any], **document: Any) -> None:
    """A new version, not in force."""
    scope = {"name": policy["name"], "scope": policy["scope"]}
    answer = await house.admin.put(f"/policies/{policy['id']}", json=scope | document)
    assert answer.status_code == 200, answer.text


def test_what_a_draft_would_have_changed_is_told_in_placement_money_and_refusals(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, JURISDICTION="DE") as house,
        ):
            world = await furnish(
                house,
                {"base_url": backend.base_url, "jurisdictions": ["US"], "region": "us-east"},
                {"base_url": backend.base_url, "jurisdictions": ["DE"], "region": "eu-central"},
            )
            policy = await house.policy(
                name="where",
                scope={"team": world.squad["id"]},
                prefer=["cloud", "on_prem"],
                match={"tags": {"app": ["desk"]}},
            )
            await house.in_force()
            for n in range(12):
                await ask(house, world, **({"x-meterhouse-tags": "app=desk"} if n % 3 else {}))
            assert len(await ledger_rows(house)) == 12

            same = await replayed(house, policy["id"], version=1)
            assert (same["decisions"], same["changed"], same["unreadable"]) == (12, 0, 0)
            assert same["before"] == same["after"]

            await draft(house, policy, require={"residency": ["EU"]})
            home = await replayed(house, policy["id"])
            assert home["version"] == 2
            assert home["changed"] >= 1
            regions = {each["region"]: each for each in home["regions"]}
            assert regions["eu-central"]["after"] == 12
            assert regions.get("us-east", {"after": 0})["after"] == 0
            assert {each["jurisdiction"] for each in home["jurisdictions"]} <= {"US", "DE"}
            assert home["before"]["charge"] == home["after"]["charge"]
            (group,) = home["groups"]
            assert (group["team_id"], group["model"]) == (world.squad["id"], "chat")

            await draft(house, policy, require={"residency": ["FR"]})
            nowhere = await replayed(house, policy["id"])
            assert nowhere["after"]["refused"] == nowhere["changed"] == 12
            assert nowhere["after"]["charge"] == "0"
            assert all(each["to"] == "refused: residency_violation" for each in nowhere["moves"])
            before = await replayed(
                house,
                policy["id"],
                **{"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"},
            )
            assert before["decisions"] == 0

    run(scenario())


def test_a_version_in_shadow_tells_what_it_disagrees_about_since_it_is_there(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as backend,
            open_house(tmp_path, store_url, JURISDICTION="DE") as house,
        ):
            world = await furnish(house, {"base_url": backend.base_url, "jurisdictions": ["US"]})
            made = await house.make(
                "policies",
                name="home",
                scope={"tenant": world.tenant["id"]},
                require={"residency": ["EU"]},
            )
            path = f"/policies/{made['id']}"
            assert (await house.look(f"policies/{made['id']}/disagreement"))["version"] is None
            await house.in_force()
            await ask(house, world)
            await asyncio.sleep(0.01)
            assert (await house.admin.post(f"{path}/shadow", json={})).status_code == 200
            await house.in_force()
            for _ in range(3):
                await ask(house, world)
            assert len(await ledger_rows(house)) == 4, "a version in shadow refuses nothing"

            told = await house.look(f"policies/{made['id']}/disagreement")

            assert (told["decisions"], told["changed"], told["after"]["refused"]) == (3, 3, 3)

    run(scenario())


def test_a_team_that_the_draft_does_not_cover_is_left_out(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            other = await house.make("teams", tenant_id=world.tenant["id"], name="others")
            made = await house.make(
                "policies", name="p", scope={"team": other["id"]}, require={"residency": ["EU"]}
            )
            await house.in_force()
            await ask(house, world)
            assert len(await ledger_rows(house)) == 1

            told = await replayed(house, made["id"])
            assert (told["decisions"], told["changed"]) == (0, 0)
            refused = await house.admin.post(
                "/policies/replay", json={"policy_id": made["id"], "version": 9}
            )
            assert refused.status_code == 422

    run(scenario())
