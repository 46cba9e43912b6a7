"""Prompts that begin alike meet at one backend, where a policy wants it."""

from pathlib import Path

from tests.booked import ledger_rows
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend


async def ask(house: House, world: World, begins: str, ends: str) -> None:
    messages = [{"role": "system", "content": begins * 1_200}, {"role": "user", "content": ends}]
    answer = await house.ask(world.secret, model="chat", messages=messages, max_tokens=8)
    assert answer.status_code == 200, answer.text


def test_conversations_stay_where_their_beginning_is_cached_and_replay_as_they_were(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as one,
            ScriptedBackend() as two,
            open_house(tmp_path, store_url) as house,
        ):
            fleet = (one, two)
            world = await furnish(house, *({"base_url": each.base_url} for each in fleet))
            scope = {"tenant": world.tenant["id"]}
            policy = await house.policy(name="near", scope=scope, affinity="prefix")
            await house.in_force()

            places = set()
            for begins in "abcdefghijklmnop":
                before = [len(each.book) for each in fleet]
                for turn in range(2):
                    await ask(house, world, begins, f"question {turn}")
                came = [len(each.book) - had for each, had in zip(fleet, before, strict=True)]
                assert sorted(came) == [0, 2]
                places.add(came.index(2))
            assert places == {0, 1}, "sixteen beginnings, and not all at one"

            assert len(await ledger_rows(house)) == 32
            told = await house.admin.post(
                "/policies/replay", json={"policy_id": policy["id"], "version": 1}
            )
            assert (told.json()["decisions"], told.json()["changed"]) == (32, 0)

    run(scenario())
