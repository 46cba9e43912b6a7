"""Plain answers through the whole gateway: what passes, what is changed, what is booked."""

from pathlib import Path
from typing import Any

from tests.house import furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]


def test_a_chat_is_answered_metered_and_leaves_no_hold(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            await house.make(
                "budgets", scope={"key": world.key["id"]}, amount="10.00", period="month"
            )
            await house.in_force()

            answer = await house.ask(world.secret, model="chat", messages=HELLO, max_tokens=50)

            assert answer.status_code == 200, answer.text
            assert answer.json()["usage"]["completion_tokens"] == 16
            assert answer.headers["x-meterhouse-backend-region"] == "eu-central"
            assert answer.headers["x-request-id"] == backend.book[0].request_id
            assert "x-meterhouse-max-tokens" not in answer.headers
            assert answer.headers["x-meterhouse-budget-remaining"].endswith(" USD")
            await house.settled()
            (budget,) = (await house.look("budgets"))["items"]
            spent = 6 * 3 + 16 * 15  # prompt and output tokens, in millionths of a dollar
            assert budget["spent"] == f"0.{spent:06d}"
            assert budget["held"] == "0"

    run(scenario())


def test_everything_the_gateway_does_not_understand_reaches_the_backend_byte_for_byte(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            body: dict[str, Any] = {
                "model": "chat",
                "messages": HELLO,
                "seed": 7,
                "logprobs": True,
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
                "response_format": {"type": "json_schema", "json_schema": {"name": "x"}},
                "something_new": {"nested": [1, 2.5, None, "é"]},
                "max_tokens": 9,
            }

            await house.ask(world.secret, **body)

            assert backend.book[0].body == body | {"model": "m"}

    run(scenario())


def test_a_request_without_max_tokens_is_sent_with_the_granted_output(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            await house.ask(world.secret, model="chat", messages=HELLO)
            assert backend.book[0].max_tokens == 1024

            # What a policy says of it holds, and what the client says before that.
            scope = {"key": world.key["id"]}
            await house.policy(name="brief", scope=scope, budget={"default_output": 77})
            await house.in_force()
            await house.ask(world.secret, model="chat", messages=HELLO)
            await house.ask(world.secret, model="chat", messages=HELLO, max_tokens=80)
            assert [entry.max_tokens for entry in backend.book] == [1024, 77, 80]

    run(scenario())


def test_a_budget_that_cannot_pay_all_of_it_clamps_the_output_and_says_so(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            await house.make(
                "budgets", scope={"team": world.team["id"]}, amount="0.005", period="month"
            )
            await house.in_force()

            answer = await house.ask(world.secret, model="chat", messages=HELLO, max_tokens=4000)

            granted = int(answer.headers["x-meterhouse-max-tokens"])
            assert 64 <= granted < 4000
            assert backend.book[0].max_tokens == granted

    run(scenario())


def test_embeddings_and_completions_go_the_same_way(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})

            vectors = await house.ask(
                world.secret, "/v1/embeddings", model="chat", input=["one", "two"]
            )
            text = await house.ask(
                world.secret, "/v1/completions", model="chat", prompt=["a", "b"], max_tokens=5
            )

            assert len(vectors.json()["data"]) == 2
            assert text.status_code == 200
            assert "max_tokens" not in backend.book[0].body
            assert backend.book[1].max_tokens == 5

    run(scenario())


def test_models_and_usage_show_what_this_key_may_see(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            headers = {"x-api-key": world.secret}

            models = await house.client.get("/v1/models", headers=headers)
            one = await house.client.get("/v1/models/chat", headers=headers)
            none = await house.client.get("/v1/models/nothing", headers=headers)
            usage = await house.client.get("/v1/usage", headers=headers)

            assert [m["id"] for m in models.json()["data"]] == ["chat"]
            assert one.json()["id"] == "chat"
            assert none.status_code == 404
            assert none.json()["error"]["code"] == "model_not_found"
            assert usage.json()["key"]["name"] == "app"

    run(scenario())


def test_a_backend_that_reports_no_usage_is_counted(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            await house.make(
                "budgets", scope={"key": world.key["id"]}, amount="10.00", period="month"
            )
            await house.in_force()
            backend.script = Script(usage="missing", tokens=20)

            answer = await house.ask(world.secret, model="chat", messages=HELLO)

            assert "usage" not in answer.json()
            await house.settled()
            (budget,) = (await house.look("budgets"))["items"]
            counted_prompt = 2 + 4 + 3  # two words, one message, the reply's priming
            spent = counted_prompt * 3 + 20 * 15
            assert budget["spent"] == f"0.{spent:06d}"

    run(scenario())
