"""`on_exhausted: {degrade_to: model}`: a cheaper model serves when no budget covers the one asked
for, visibly, by its own policy and price, and never abroad.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.booked import ledger_rows
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]
BODY: dict[str, Any] = {"model": "chat", "messages": HELLO, "max_tokens": 1000}
ABROAD = {"region": "us-east", "jurisdictions": ["US"]}

Story = Callable[["Cheaper"], Awaitable[None]]
Play = Callable[..., None]


class Cheaper:
    """`chat` at 1,000 a million output tokens, `small` at 10, `tiny` at 1: prompts are free."""

    def __init__(
        self, house: House, world: World, big: ScriptedBackend, small: ScriptedBackend
    ) -> None:
        self.house = house
        self.world = world
        self.big = big
        self.small = small

    async def policy(self, name: str, **fields: Any) -> None:
        scope = {"tenant": self.world.tenant["id"]}
        await self.house.policy(**{"name": name, "scope": scope} | fields)
        await self.house.in_force()

    async def degrade(self, model: str, to: str) -> None:
        await self.policy(
            f"{model} to {to}",
            match={"models": [model]},
            budget={"on_exhausted": {"degrade_to": to}},
        )

    async def budget(self, amount: str) -> None:
        scope = {"key": self.world.key["id"]}
        await self.house.make("budgets", scope=scope, amount=amount, period="month")
        await self.house.in_force()

    async def ask(self, **changes: Any) -> httpx.Response:
        answer = await self.house.ask(self.world.secret, **BODY | changes)
        await self.house.settled()
        return answer


@pytest.fixture
def played(tmp_path: Path, store_url: str) -> Play:
    """Plays a story; `small` and `tiny` stand on the second backend, placed as told."""

    def play(story: Story, **placed: Any) -> None:
        async def whole() -> None:
            async with (
                ScriptedBackend() as big,
                ScriptedBackend() as small,
                open_house(tmp_path, store_url, JURISDICTION="DE") as house,
            ):
                world = await furnish(house, {"base_url": big.base_url}, charge=("0", "1000"))
                found = Cheaper(house, world, big, small)
                await _furnish_cheaper(found, placed)
                await story(found)

        run(whole())

    return play


async def _furnish_cheaper(found: Cheaper, placed: dict[str, Any]) -> None:
    house = found.house
    backend = {
        "name": "cheap",
        "dialect": "openai",
        "base_url": found.small.base_url,
        "region": "eu-edge",
        "jurisdictions": ["DE"],
        "placement": "edge",
    }
    made = await house.make("backends", **backend | placed)
    for name, amount in (("small", "10"), ("tiny", "1")):
        targets = [{"backend_id": made["id"], "upstream_model": f"up-{name}", "weight": 1}]
        await house.make(
            "models", name=name, targets=targets, capabilities=["chat"], context_window=8192
        )
        for meter, price in (("input", "0"), ("output", amount)):
            await house.make(
                "prices",
                book="charge",
                model=name,
                meter=meter,
                amount_per_million=price,
                currency="USD",
                effective_from="2026-01-01T00:00:00Z",
            )
    await house.in_force()


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_cheaper_model_serves_when_the_budget_cannot_cover_the_one_asked_for(
    played: Play,
) -> None:
    async def story(found: Cheaper) -> None:
        await found.degrade("chat", "small")
        await found.budget("0.02")  # 20 tokens of chat, 2,000 of small
        found.small.script = Script(tokens=30)

        answer = await found.ask()

        assert answer.status_code == 200
        assert answer.headers["x-meterhouse-degraded-from"] == "chat"
        assert answer.headers["x-meterhouse-backend-region"] == "eu-edge"
        assert answer.json()["model"] == "up-small"
        assert (len(found.big.book), found.small.book[0].model) == (0, "up-small")
        assert found.small.book[0].max_tokens == 1000
        (row,) = await ledger_rows(found.house)
        assert (row.model, row.output_tokens, row.charge_picos) == ("small", 30, 30 * 10**7)
        (budget,) = (await found.house.look("budgets"))["items"]
        assert (budget["spent"], budget["held"]) == ("0.0003", "0")

    played(story)


def test_what_the_budget_covers_is_not_degraded(played: Play) -> None:
    async def story(found: Cheaper) -> None:
        await found.degrade("chat", "small")
        await found.budget("0.1")

        answer = await found.ask()  # clamped to 100 tokens, which are enough to be of use

        assert answer.headers["x-meterhouse-max-tokens"] == "100"
        assert "x-meterhouse-degraded-from" not in answer.headers
        assert (len(found.big.book), len(found.small.book)) == (1, 0)

    played(story)


def test_one_cheaper_model_leads_to_the_next_and_no_circle_is_run_twice(played: Play) -> None:
    async def story(found: Cheaper) -> None:
        for model, to in (("chat", "small"), ("small", "tiny"), ("tiny", "chat")):
            await found.degrade(model, to)
        await found.budget("0.0005")  # 50 tokens of small are too few, 500 of tiny are not

        served = await found.ask(max_tokens=400)
        assert served.headers["x-meterhouse-degraded-from"] == "chat"
        assert found.small.book[0].model == "up-tiny"

        found.small.script = Script(tokens=450)
        await found.ask(max_tokens=450)
        refused = await found.ask()
        assert code(refused) == (429, "insufficient_quota")
        assert refused.headers["x-should-retry"] == "false"
        assert "tiny instead: " in refused.json()["error"]["message"]
        assert found.big.book == []

    played(story)


def test_without_a_cheaper_model_the_budget_refuses_for_good(played: Play) -> None:
    async def story(found: Cheaper) -> None:
        await found.policy("says so", budget={"on_exhausted": "refuse"})
        await found.budget("0.02")

        refused = await found.ask()

        assert code(refused) == (429, "insufficient_quota")
        assert refused.headers["x-should-retry"] == "false"
        assert (found.big.book, found.small.book) == ([], [])

    played(story)


def test_a_rate_limit_degrades_nothing(played: Play) -> None:
    async def story(found: Cheaper) -> None:
        await found.degrade("chat", "small")
        scope = {"key": found.world.key["id"]}
        await found.house.make("limits", scope=scope, requests_per_minute=1, tokens_per_day=5000)
        await found.house.in_force()

        assert (await found.ask()).status_code == 200
        assert code(await found.ask()) == (429, "rate_limit_exceeded")
        assert code(await found.ask(max_tokens=4096)) == (429, "rate_limit_exceeded")
        assert found.small.book == []

    played(story)


def test_a_day_of_tokens_used_up_degrades_nothing(played: Play) -> None:
    async def story(found: Cheaper) -> None:
        await found.degrade("chat", "small")
        scope = {"key": found.world.key["id"]}
        await found.house.make("limits", scope=scope, tokens_per_day=30)
        await found.house.in_force()

        assert code(await found.ask()) == (429, "rate_limit_exceeded")
        assert found.small.book == []

    played(story)


def test_content_asked_for_at_home_goes_to_no_cheaper_model_abroad(played: Play) -> None:
    async def story(found: Cheaper) -> None:
        await found.degrade("chat", "small")
        await found.policy(
            "at home", match={"models": ["chat"]}, require={"residency": ["EU"]}
        )  # says nothing of `small`
        await found.budget("0.02")

        refused = await found.ask()

        assert code(refused) == (429, "insufficient_quota")
        assert "small instead: " in refused.json()["error"]["message"]
        assert (found.big.book, found.small.book) == ([], [])
        direct = await found.ask(model="small")
        assert direct.status_code == 200  # whoever asks for it by name may have it

    played(story, **ABROAD)


def test_a_key_gets_no_model_by_degrading_that_it_may_not_ask_for(played: Play) -> None:
    async def story(found: Cheaper) -> None:
        await found.degrade("chat", "small")
        key = await found.house.make(
            "keys", team_id=found.world.squad["id"], name="narrow", scopes={"models": ["chat"]}
        )
        found.world.key, found.world.secret = key, key["secret"]
        await found.budget("0.02")

        assert code(await found.ask()) == (429, "insufficient_quota")
        assert found.small.book == []

    played(story)


def test_a_cheaper_model_of_a_sliced_policy_is_sliced_by_its_own_price(played: Play) -> None:
    async def story(found: Cheaper) -> None:
        await found.policy(
            "sliced",
            budget={"hold": "sliced", "slice": 64, "on_exhausted": {"degrade_to": "small"}},
        )
        await found.budget("0.01")  # 10 tokens of chat, 1,000 of small
        found.small.script = Script(tokens=3000)

        answer = await found.ask(max_tokens=3000)

        assert answer.headers["x-meterhouse-degraded-from"] == "chat"
        assert answer.json()["usage"]["completion_tokens"] == 1000
        assert answer.json()["choices"][0]["finish_reason"] == "length"
        (budget,) = (await found.house.look("budgets"))["items"]
        assert (budget["spent"], budget["held"]) == ("0.01", "0")

    played(story)


def test_explain_shows_what_would_stand_in(played: Play) -> None:
    async def story(found: Cheaper) -> None:
        await found.degrade("chat", "small")
        await found.policy("at home", match={"models": ["chat"]}, require={"residency": ["EU"]})
        # The test's admin API has no explainer of its own.
        from gateway.admin.policies import Explain
        from gateway.explaining import explainer

        explain = explainer(found.house.opened.deps.engine, frozenset({"DE"}))
        told = await explain(Explain(key_id=found.world.key["id"], model="chat"))

        assert told["policy"]["degrade_to"] == {"value": "small", "set_by": "chat to small"}
        assert told["when_exhausted"]["model"] == "small"
        assert told["when_exhausted"]["decision"] == "refuse"
        assert told["when_exhausted"]["policy"]["residency"]["set_by"] == "at home"

    played(story, **ABROAD)


def test_a_cheaper_model_serves_when_the_hour_of_the_team_cannot_pay_for_the_one_asked_for(
    played: Play,
) -> None:
    async def story(found: Cheaper) -> None:
        await found.degrade("chat", "small")
        await found.policy("burn", cost={"max_per_team_hour": "0.02"})

        answer = await found.ask()

        assert answer.status_code == 200
        assert answer.headers["x-meterhouse-degraded-from"] == "chat"

    played(story)
