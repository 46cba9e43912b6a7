"""Where a budget cannot cover the worst of a whole plan, the cheapest backend that may serve the
request does, before anybody is refused.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.booked import ledger_rows
from tests.house import World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]
PLACEMENTS = ("on_prem", "edge", "cloud")
DOLLARS = ("1000", "10", "500")  # a million output tokens, of each backend; prompts are free

Budget = Callable[["Market"], Awaitable[None]]


class Market:
    """`plain` on three backends, charged as they cost: the dearest is preferred."""

    def __init__(self, world: World, backends: list[ScriptedBackend]) -> None:
        self.world, self.house = world, world.house
        self.dear, self.cheap, self.middle = backends

    async def ask(self, max_tokens: int = 1000) -> httpx.Response:
        asked = {"model": "plain", "messages": HELLO, "max_tokens": max_tokens}
        answer = await self.house.ask(self.world.secret, **asked)
        await self.house.settled()
        return answer

    @property
    def asked(self) -> list[int]:
        """How many requests each backend has had."""
        return [len(each.book) for each in (self.dear, self.cheap, self.middle)]


@pytest.fixture
def market(tmp_path: Path, store_url: str) -> Callable[..., Any]:
    async def play(stack: AsyncExitStack, cheap: dict[str, Any], **policy: Any) -> Market:
        backends = [await stack.enter_async_context(ScriptedBackend()) for _ in DOLLARS]
        for each in backends:
            each.script = Script(tokens=10)
        house = await stack.enter_async_context(open_house(tmp_path, store_url, JURISDICTION="DE"))
        given = [
            {"base_url": each.base_url, "placement": place}
            for each, place in zip(backends, PLACEMENTS, strict=True)
        ]
        given[1] |= cheap
        world = await furnish(house, *given)
        targets = [
            {"backend_id": each["id"], "upstream_model": "p", "weight": 1}
            for each in world.backends
        ]
        await house.make("models", name="plain", targets=targets, capabilities=["chat"])
        for made, dollars in zip(world.backends, DOLLARS, strict=True):
            for meter, amount in (("input", "0"), ("output", dollars)):
                await house.make(
                    "prices", book="cost", backend_id=made["id"], upstream_model="p", meter=meter,
                    amount_per_million=amount, currency="USD",
                    effective_from="2026-01-01T00:00:00Z",
                )  # fmt: skip
        scope = {"team": world.squad["id"]}
        fields = {"name": "speed", "scope": scope, "prefer": list(PLACEMENTS)}
        await house.policy(**fields | policy)
        await house.in_force()
        return Market(world, backends)

    return play


async def budgeted(market: Market, amount: str = "0.02") -> None:
    """20 tokens of the dearest backend, 2,000 of the cheapest."""
    scope = {"key": market.world.key["id"]}
    await market.house.make("budgets", scope=scope, amount=amount, period="month")
    await market.house.in_force()


async def by_the_hour(market: Market) -> None:
    scope, cost = {"team": market.world.squad["id"]}, {"max_per_team_hour": "0.02"}
    await market.house.policy(name="burn", scope=scope, cost=cost)
    await market.house.in_force()


@pytest.mark.parametrize("bound", [budgeted, by_the_hour], ids=["budget", "hour"])
def test_the_cheapest_backend_serves_where_the_dearer_ones_do_not_fit(
    market: Callable[..., Any], bound: Budget
) -> None:
    async def story() -> None:
        async with AsyncExitStack() as stack:
            found = await market(stack, {}, retries={"max_attempts": 2})
            assert (await found.ask()).status_code == 200
            assert found.asked == [1, 0, 0]
            await bound(found)
            answer = await found.ask()
            assert answer.status_code == 200
            assert answer.json()["usage"]["completion_tokens"] == 10
            assert found.asked == [1, 1, 0]
            rows = await ledger_rows(found.house)
            won = max(rows, key=lambda row: row.admitted_at_us)
            assert won.backend_id == found.world.backends[1]["id"]
            assert won.charge_picos == 10 * 10_000_000

            told = await found.house.look("decisions", request_id=won.request_id)
            (decision,) = told["items"]
            places = [each["id"] for each in found.world.backends]
            assert [each["backend_id"] for each in decision["plan"]] == places[:2]
            assert [each["backend_id"] for each in decision["afforded"]] == [places[1]]

    run(story())


def test_what_fits_nowhere_is_refused_at_the_cheapest_backends_price(
    market: Callable[..., Any],
) -> None:
    async def story() -> None:
        async with AsyncExitStack() as stack:
            found = await market(stack, {}, budget={"clamp": "off"})
            await budgeted(found, "0.005")
            answer = await found.ask()
            assert answer.status_code == 429
            error = answer.json()["error"]
            assert error["code"] == "insufficient_quota"
            assert "may cost 0.01 USD" in error["message"]
            assert found.asked == [0, 0, 0]
            assert await ledger_rows(found.house) == []
            (decision,) = (await found.house.look("decisions", refusal="any"))["items"]
            assert decision["refusal"] == "insufficient_quota"
            assert decision["afforded"] is None

    run(story())


def test_a_backend_that_the_policy_forbids_is_not_asked_however_cheap(
    market: Callable[..., Any],
) -> None:
    async def story() -> None:
        async with AsyncExitStack() as stack:
            abroad = {"region": "us-east", "jurisdictions": ["US"]}
            found = await market(
                stack, abroad, require={"residency": ["EU"]}, budget={"clamp": "off"}
            )
            await budgeted(found, "0.7")  # no 1,000 tokens of the dearest, but of the middle one
            assert (await found.ask()).status_code == 200
            assert found.asked == [0, 0, 1]
            assert (await found.ask(max_tokens=4000)).status_code == 429
            assert found.asked == [0, 0, 1]

    run(story())
