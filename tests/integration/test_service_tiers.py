"""Service tiers from the request to the ledger: held at what was asked for, billed at what the
backend says that it served.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.booked import ledger_rows
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]  # 6 tokens, as the backend counts
TOKENS = 10
MILLION_PICOS = 10**6
# What 6 tokens of prompt and 10 of answer come to, in picos.
STANDARD, PRIORITY, FLEX = ((6 * i + 10 * o) * MILLION_PICOS for i, o in ((3, 15), (6, 30), (2, 8)))


@contextlib.asynccontextmanager
async def staged(tmp_path: Path, store_url: str) -> AsyncIterator[tuple[ScriptedBackend, World]]:
    """3 and 15 a million, priority twice as much, flex 2 and 8; the backend costs 1 and 5, and 2
    and 10 with priority. Embeddings may be had in batch, for 1.
    """
    async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
        world = await furnish(house, {"base_url": backend.base_url})
        charge = {"book": "charge", "model": "chat"}
        cost = {
            "book": "cost", "backend_id": world.backends[0]["id"], "upstream_model": "m"
        }  # fmt: skip
        for subject, tier, amounts in (
            (charge, "priority", ("6", "30")),
            (charge, "flex", ("2", "8")),
            (charge, "batch", ("1",)),
            (cost, "standard", ("1", "5")),
            (cost, "priority", ("2", "10")),
        ):
            for meter, amount in zip(("input", "output"), amounts, strict=False):
                await house.make(
                    "prices", **subject, meter=meter, service_tier=tier, currency="USD",
                    amount_per_million=amount, effective_from="2026-01-01T00:00:00Z",
                )  # fmt: skip
        await house.in_force()
        backend.script = Script(tokens=TOKENS)
        yield backend, world


async def asked(world: World, tier: str | None, **more: Any) -> Any:
    named = {} if tier is None else {"service_tier": tier}
    body = {"model": "chat", "messages": HELLO, "max_tokens": TOKENS, **named, **more}
    answer = await world.house.ask(world.secret, **body)
    await world.house.settled()
    return answer


CASES = (
    # asked, told by the backend, charged, booked: tier, asked, served
    (None, None, STANDARD, (None, None, None)),
    (None, "default", STANDARD, (None, None, None)),
    ("default", "default", STANDARD, (None, None, None)),
    ("auto", "default", STANDARD, ("standard", "auto", "default")),
    ("auto", "priority", PRIORITY, ("priority", "auto", "priority")),
    ("auto", None, STANDARD, ("standard", "auto", None)),
    ("priority", "priority", PRIORITY, ("priority", "priority", "priority")),
    ("priority", "default", STANDARD, ("standard", "priority", "default")),  # it had no room
    ("priority", None, PRIORITY, ("priority", "priority", None)),
    ("priority", "scale", PRIORITY, ("priority", "priority", "scale")),
    ("flex", "flex", FLEX, ("flex", "flex", "flex")),
    (None, "priority", PRIORITY, ("priority", "standard", "priority")),  # dearer than asked
    (None, "batch", STANDARD, ("standard", "standard", "batch")),  # no price for answers there
)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_billed_in_the_tier_that_was_served(
    tmp_path: Path, store_url: str, stream: bool
) -> None:
    async def scenario() -> None:
        async with staged(tmp_path, store_url) as (backend, world):
            for tier, told, _, _ in CASES:
                backend.script = Script(tokens=TOKENS, service_tier=told)
                answer = await asked(world, tier, stream=stream)
                assert answer.status_code == 200
                assert backend.book[-1].body.get("service_tier") == tier

            rows = await ledger_rows(world.house)

            found = [
                (row.charge_picos, (row.service_tier, row.tier_asked, row.tier_served))
                for row in rows
            ]
            assert found == [(charged, booked) for _, _, charged, booked in CASES]
            # 1 and 5 a million in the standard tier, twice as much with priority; of flex nobody
            # said what it costs.
            assert [row.cost_picos // MILLION_PICOS for row in rows] == [
                56, 56, 56, 56, 112, 56, 112, 56, 112, 112, 0, 112, 56,
            ]  # fmt: skip

    run(scenario())


def test_a_tier_without_a_price_is_refused_by_name_and_costs_nothing(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with staged(tmp_path, store_url) as (backend, world):
            refused = await asked(world, "batch")

            error = refused.json()["error"]
            assert (refused.status_code, error["code"]) == (403, "unpriced_model")
            assert error["param"] == "service_tier"
            assert "priced in: standard and flex and priority" in error["message"]
            assert backend.book == []
            embedded = await world.house.ask(
                world.secret, "/v1/embeddings", model="chat", input="hello", service_tier="batch"
            )
            assert embedded.status_code == 200
            (row,) = await ledger_rows(world.house)
            assert (row.charge_picos, row.service_tier) == (MILLION_PICOS, "batch")

    run(scenario())


def test_a_request_is_explained_with_the_tier_it_is_rated_in(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with staged(tmp_path, store_url) as (backend, world):
            backend.script = Script(tokens=TOKENS, service_tier="priority")
            await asked(world, "auto")
            await ledger_rows(world.house)

            (request,) = (await world.house.look("usage/requests"))["items"]

            (attempt,) = request["attempts"]
            told = tuple(attempt[x] for x in ("service_tier", "tier_asked", "tier_served"))
            assert told == ("priority", "auto", "priority")
            assert [rated["amount"] for rated in attempt["rating"]] == ["0.000036", "0.0003"]
            assert {x["price_version"].partition("@")[2] for x in attempt["rating"]} == {"priority"}

    run(scenario())


async def left(house: House, world: World, amount: str) -> dict[str, Any]:
    budget = await house.make(
        "budgets", scope={"team": world.team["id"]}, amount=amount, period="month"
    )
    await house.in_force()
    return budget


def test_a_hold_covers_the_tier_that_was_asked_for_and_of_auto_the_dearest(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with staged(tmp_path, store_url) as (backend, world):
            house = world.house
            # The bound of the prompt is some hundred tokens: 450 to 800 millionths in the standard
            # tier, twice as much in the priority one.
            budget = await left(house, world, "0.0008")

            statuses = [
                (await asked(world, tier)).status_code for tier in ("priority", "auto", None)
            ]

            assert statuses == [429, 429, 200]
            assert len(backend.book) == 1
            shown = await house.look(f"budgets/{budget['id']}")
            assert (shown["spent"], shown["held"]) == ("0.000168", "0")

    run(scenario())


def test_a_dearer_tier_than_was_asked_for_is_billed_and_shows_as_overrun(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with staged(tmp_path, store_url) as (backend, world):
            house = world.house
            budget = await left(house, world, "0.02")
            backend.script = Script(tokens=1_000, service_tier="priority")

            # Held for 1,000 tokens at 15 a million; billed at 30.
            first = await asked(world, None, max_tokens=1_000)
            shown = await house.look(f"budgets/{budget['id']}")
            second = await asked(world, None)

            assert (first.status_code, second.status_code) == (200, 429)
            assert (shown["spent"], shown["held"]) == ("0.030036", "0")

    run(scenario())


def test_a_policy_for_some_requests_leaves_each_tier_its_own_prices(
    tmp_path: Path, store_url: str
) -> None:
    """Its ceiling is for streams: the standard tier keeps to it, the priority one does not."""

    async def scenario() -> None:
        async with staged(tmp_path, store_url) as (_, world):
            await world.house.policy(
                name="streams",
                scope={"tenant": world.tenant["id"]},
                match={"stream": True},
                cost={"max_output_per_million": "20"},
            )
            await world.house.in_force()

            tiers = (None, "priority", None, "flex", "auto")
            statuses = [(await asked(world, each, stream=True)).status_code for each in tiers]

            assert statuses == [200, 403, 200, 200, 403]
            like = {"key_id": world.key["id"], "model": "chat", "max_tokens": 5, "stream": True}
            for tier, status in zip((*tiers, "batch"), (*statuses, 403), strict=True):
                explained = await world.house.admin.post(
                    "/policies/explain", json=like | {"service_tier": tier}
                )
                assert (explained.json()["decision"] == "serve") is (status == 200), tier
            charged = [row.charge_picos for row in await ledger_rows(world.house)]
            assert charged == [STANDARD, STANDARD, FLEX]

    run(scenario())


def test_a_stream_that_its_client_leaves_is_billed_in_the_tier_it_began_in(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with staged(tmp_path, store_url) as (backend, world):
            backend.script = Script(tokens=9, service_tier="default", stall_after_chunks=4)
            body = {
                "model": "chat", "messages": HELLO, "max_tokens": 9, "stream": True,
                "service_tier": "priority",
            }  # fmt: skip
            headers = {"authorization": f"Bearer {world.secret}"}
            request = world.house.client.stream(
                "POST", "/v1/chat/completions", json=body, headers=headers
            )
            async with request as answer:
                seen = 0
                async for line in answer.aiter_lines():
                    seen += line.startswith("data: ")
                    if seen == 4:
                        break
            (row,) = await ledger_rows(world.house)

            assert (row.service_tier, row.tier_served) == ("standard", "default")

    run(scenario())
