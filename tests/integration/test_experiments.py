"""Experiments: requests for one model divided among several."""

from collections import Counter
from pathlib import Path
from typing import Any

from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]
SPLIT = {"chat": 50, "chat-new": 50}


async def with_a_new_model(house: House, world: World, **fields: Any) -> None:
    """`chat-new` on the second backend; `chat` on the first alone."""
    old, new = (backend["id"] for backend in world.backends)
    model = {name: world.model[name] for name in ("name", "capabilities", "context_window")}
    await house.admin.put(
        f"/models/{world.model['id']}",
        json=model | {"targets": [{"backend_id": old, "upstream_model": "m"}]},
    )
    new_model = model | {"name": "chat-new", "max_output_tokens": 4096} | fields
    await house.make("models", **new_model, targets=[{"backend_id": new, "upstream_model": "m"}])
    for meter in ("input", "output"):
        await house.make(
            "prices", book="charge", model="chat-new", meter=meter, amount_per_million="1",
            currency="USD", effective_from="2026-01-01T00:00:00Z",
        )  # fmt: skip


async def divided(house: House, world: World, **more: Any) -> None:
    await house.policy(
        name="trial",
        scope={"tenant": world.tenant["id"]},
        match={"models": ["chat"]},
        experiment={"name": "trial", "split": SPLIT, "by": "tag:user"},
        **more,
    )
    await house.in_force()


async def ask(house: House, world: World, user: str, model: str = "chat") -> str:
    """The id of the decision on a request of this user."""
    headers = {
        "authorization": f"Bearer {world.secret}",
        "x-meterhouse-tags": f"user={user}",
        "x-meterhouse-explain": "1",
    }
    body = {"model": model, "messages": HELLO}
    answer = await house.client.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-request-id"]


def test_each_user_stays_with_a_model_and_usage_and_explain_say_which(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as old,
            ScriptedBackend() as new,
            open_house(tmp_path, store_url) as house,
        ):
            world = await furnish(house, {"base_url": old.base_url}, {"base_url": new.base_url})
            await with_a_new_model(house, world)
            await divided(house, world)
            went: dict[str, list[bool]] = {}
            for _ in range(3):
                for number in range(12):
                    before = len(new.book)
                    await ask(house, world, f"u{number}")
                    went.setdefault(f"u{number}", []).append(len(new.book) > before)

            assert all(len(set(each)) == 1 for each in went.values())
            arms = Counter(each[0] for each in went.values())
            assert set(arms) == {True, False}
            for user, (is_new, *_) in went.items():
                body = {"key_id": world.key["id"], "model": "chat", "tags": {"user": user}}
                told = (await house.admin.post("/policies/explain", json=body)).json()
                assert told["model"] == ("chat-new" if is_new else "chat")
                given = {"name": "trial", "instead_of": "chat"}
                assert told.get("experiment") == (given if is_new else None)
            assert len(old.book) + len(new.book) == 36

            # Whoever asks for the new model gets it: only the model named is divided.
            before = len(new.book)
            for number in range(6):
                await ask(house, world, f"u{number}", "chat-new")
            assert len(new.book) == before + 6

    run(scenario())


def test_a_variant_that_may_not_serve_leaves_the_request_where_it_was(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as old,
            ScriptedBackend() as new,
            open_house(tmp_path, store_url, JURISDICTION="DE") as house,
        ):
            world = await furnish(
                house,
                {"base_url": old.base_url, "jurisdictions": ["DE"]},
                {"base_url": new.base_url, "jurisdictions": ["US"]},
            )
            await with_a_new_model(house, world)
            # The model asked for is bound to the EU; no document speaks of the other one.
            await divided(house, world, require={"residency": ["EU"]})
            for number in range(12):
                await ask(house, world, f"u{number}")
            assert (len(old.book), len(new.book), new.accepted) == (12, 0, 0)

            narrow = await house.make(
                "keys",
                team_id=world.squad["id"],
                name="narrow",
                scopes={"models": ["chat"], "cidrs": None},
            )
            await house.in_force()
            world.secret = narrow["secret"]
            for number in range(12):
                await ask(house, world, f"u{number}")
            assert (len(old.book), len(new.book)) == (24, 0)

    run(scenario())
