"""Policies that divide requests among backends by weights of their own."""

from pathlib import Path

from tests.house import furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]


def test_a_policy_divides_by_its_weights_and_not_by_cost(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as old,
            ScriptedBackend() as new,
            open_house(tmp_path, store_url) as house,
        ):
            world = await furnish(house, {"base_url": old.base_url}, {"base_url": new.base_url})
            for backend, amount in zip(world.backends, ("1", "9"), strict=True):
                for meter in ("input", "output"):
                    await house.make(
                        "prices", book="cost", backend_id=backend["id"], upstream_model="m",
                        meter=meter, amount_per_million=amount, currency="USD",
                        effective_from="2026-01-01T00:00:00Z",
                    )  # fmt: skip
            in_old, in_new = (backend["id"] for backend in world.backends)
            scope = {"key": world.key["id"]}

            async def served(**weights: int) -> tuple[int, int]:
                named = {in_old: weights["old"], in_new: weights["new"]}
                name = f"{weights['old']}-{weights['new']}"  # the later name wins within a scope
                await house.policy(name=name, scope=scope, prefer="weighted", weights=named)
                await house.in_force()
                before = len(old.book), len(new.book)
                for _ in range(40):
                    answer = await house.ask(world.secret, model="chat", messages=HELLO)
                    assert answer.status_code == 200
                return len(old.book) - before[0], len(new.book) - before[1]

            assert await served(old=0, new=1) == (0, 40)
            to_old, to_new = await served(old=1, new=3)
            assert 0 < to_old < to_new
            await new.stop()  # what cannot be reached is passed over, whatever its weight
            for _ in range(3):
                answer = await house.ask(world.secret, model="chat", messages=HELLO)
                assert answer.status_code == 200

    run(scenario())


def test_a_weight_for_a_backend_that_is_not_there_is_refused(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            document = {"name": "p", "scope": {"key": world.key["id"]}, "weights": {"bk_0": 1}}
            refused = await house.admin.post("/policies", json=document)
            assert refused.status_code == 422
            assert "no backend 'bk_0'" in refused.text

            document["weights"] = {world.backends[0]["id"]: 1}
            made = await house.make("policies", **document)
            document["weights"] = {"bk_0": 1}
            refused = await house.admin.put(f"/policies/{made['id']}", json=document)
            assert refused.status_code == 422

    run(scenario())
