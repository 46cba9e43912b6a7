"""A slow backend gets another one beside it, before the first token only: whoever begins first
serves and is charged, the other is let go and costs the provider alone. The backends' own books say
what was asked of whom.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from policies.hedging import WHY_NOT
from tests.booked import ledger_rows
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]
SLOW = Script(delay_ms=5_000)
ALWAYS = {"max_attempts": 3, "hedge_after_ms": 40, "hedge_percent": 100}
PLACEMENTS = ("on_prem", "edge", "cloud")  # of the backends, in the order they are tried


@asynccontextmanager
async def hedged(
    home: Path,
    store_url: str,
    *scripts: Script,
    retries: dict[str, Any] | None = None,
    dearer: int = 1,
    **fields: Any,
) -> AsyncIterator[tuple[World, list[ScriptedBackend]]]:
    """A house with so many backends, each `dearer` times the one before, and a policy that hedges;
    budgets on the tenant and the key.
    """
    async with AsyncExitStack() as stack:
        backends = [await stack.enter_async_context(ScriptedBackend()) for _ in scripts]
        for backend, script in zip(backends, scripts, strict=True):
            backend.script = script
        house = await stack.enter_async_context(open_house(home, store_url, JURISDICTION="DE"))
        places = zip(backends, PLACEMENTS, strict=False)
        world = await furnish(
            house,
            *({"base_url": each.base_url, "placement": place} | fields for each, place in places),
        )
        for number, made in enumerate(world.backends):
            for meter in ("input", "output"):
                await house.make(
                    "prices", book="cost", backend_id=made["id"], upstream_model="m", meter=meter,
                    amount_per_million=f"0.{dearer**number}", currency="USD",
                    effective_from="2026-01-01T00:00:00Z",
                )  # fmt: skip
        for scope in ({"tenant": world.tenant["id"]}, {"key": world.key["id"]}):
            await house.make("budgets", scope=scope, amount="10", period="month", mode="hard")
        await house.policy(
            name="hedged",
            scope={"team": world.squad["id"]},
            prefer=list(PLACEMENTS),
            retries=ALWAYS if retries is None else retries,
        )
        await house.in_force()
        yield world, backends


async def ask(world: World, **body: Any) -> Any:
    asked = {"model": "chat", "messages": HELLO, "max_tokens": 20} | body
    return await world.house.ask(world.secret, **asked)


async def spent(house: House) -> list[tuple[str, str]]:
    """Of every budget, what is spent and held."""
    return [(each["spent"], each["held"]) for each in (await house.look("budgets"))["items"]]


async def unhedged(house: House) -> list[str]:
    """Why each request had no second attempt beside a slow one, as their decisions tell."""
    await ledger_rows(house)
    found = (await house.look("decisions", limit=200))["items"]
    whole = [await house.look(f"decisions/{each['id']}") for each in found]
    return [each["hedge"]["why_not"] or "it had" for each in whole]


async def deserted(backend: ScriptedBackend) -> None:
    """Nobody waits for its answers any more."""
    while not all(entry.finished or entry.client_disconnected for entry in backend.book):
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_of_a_slow_and_a_quick_backend_the_quick_one_serves_and_is_charged(
    tmp_path: Path, store_url: str, stream: bool
) -> None:
    async def scenario() -> None:
        async with hedged(tmp_path, store_url, SLOW, Script(tokens=7)) as (world, (slow, quick)):
            answer = await ask(world, stream=stream)
            assert answer.status_code == 200
            assert [entry.finished for entry in quick.book] == [True]
            await deserted(slow)
            assert [entry.client_disconnected for entry in slow.book] == [True]

            lost, won = sorted(await ledger_rows(world.house), key=lambda row: row.attempt)
            assert (lost.attempt, lost.winner, lost.provenance) == (0, False, "estimated")
            assert (won.attempt, won.winner, won.provenance) == (1, True, "reported")
            assert [lost.backend_id, won.backend_id] == [each["id"] for each in world.backends]
            assert (won.input_tokens, won.output_tokens) == (quick.book[0].prompt_tokens, 7)
            assert (lost.charge_picos, lost.counter_nanos) == (0, 0)
            assert lost.cost_picos == lost.input_tokens * 100_000 > 0
            charge = won.input_tokens * 3_000_000 + 7 * 15_000_000
            assert (won.charge_picos, won.counter_nanos) == (charge, charge // 1000)
            shown = f"{charge / 10**12:.6f}"
            assert await spent(world.house) == [(shown, "0")] * 2

            told = await world.house.look("decisions", request_id=won.request_id)
            assert told["items"][0]["hedged"] == 1
            whole = await world.house.look(f"decisions/{told['items'][0]['id']}")
            assert [went["winner"] for went in whole["went"]] == [False, True]
            assert whole["policy"]["hedge_after_ms"] == {"value": 40, "set_by": "hedged"}
            assert whole["hedge"] == {
                "after_ms": 40, "percent": 100, "attempt": 1, "why_not": None
            }  # fmt: skip

    run(scenario())


def test_a_head_that_comes_long_before_the_first_token_does_not_win(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        early = Script(stall_after_chunks=0)
        async with hedged(tmp_path, store_url, early, Script(tokens=5)) as (world, (slow, quick)):
            answer = await ask(world, stream=True)
            assert answer.text.endswith("data: [DONE]\n\n")
            await deserted(slow)
            assert slow.book[0].status == 200
            assert quick.book[0].finished
            rows = await ledger_rows(world.house)
            assert sorted((row.attempt, row.winner) for row in rows) == [(0, False), (1, True)]

    run(scenario())


def test_a_stream_that_has_begun_is_never_asked_for_twice(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        halting = Script(tokens=6, chunk_delay_ms=30)
        async with hedged(tmp_path, store_url, halting, Script()) as (world, (first, second)):
            answer = await ask(world, stream=True)
            assert answer.text.endswith("data: [DONE]\n\n")
            assert first.book[0].finished
            assert second.book == []

    run(scenario())


def test_nothing_is_hedged_unless_a_policy_says_so(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        late = Script(delay_ms=120)
        off = [
            ({"max_attempts": 3}, "off: no policy sets retries.hedge_after_ms"),
            ({"hedge_after_ms": 40, "hedge_percent": 0}, "off: retries.hedge_percent is 0"),
            ({"hedge_after_ms": 60_000}, "no attempt was silent for 60000 ms"),
        ]
        for number, (retries, why_not) in enumerate(off):
            home = tmp_path / str(number)
            async with hedged(home, store_url, late, Script(), retries=retries) as (world, both):
                assert (await ask(world)).status_code == 200
                assert [len(each.book) for each in both] == [1, 0]
                assert await unhedged(world.house) == [why_not]

    run(scenario())


def test_no_more_is_hedged_than_the_policy_s_share(tmp_path: Path, store_url: str) -> None:
    """The second backend costs twice what the first one does, and the share is one of cost too."""

    async def scenario() -> None:
        share = {"hedge_after_ms": 20, "hedge_percent": 20}
        late = Script(delay_ms=60)
        async with hedged(tmp_path, store_url, late, Script(), retries=share, dearer=2) as (
            world,
            both,
        ):
            for _ in range(30):
                assert (await ask(world)).status_code == 200
            assert len(both[0].book) == 30
            assert 2 <= len(both[1].book) <= 3
            told = Counter(await unhedged(world.house))
            assert told["it had"] == len(both[1].book)
            assert told[WHY_NOT["share_spent"]] > 0

    run(scenario())


@pytest.mark.parametrize("status", [429, 500, 401])
def test_whoever_fails_leaves_the_race_to_the_other(
    tmp_path: Path, store_url: str, status: int
) -> None:
    async def scenario() -> None:
        failing, serving = Script(delay_ms=80, status=status), Script(delay_ms=200, tokens=4)
        for number, scripts in enumerate(((failing, serving), (serving, failing))):
            home = tmp_path / str(number)
            async with hedged(home, store_url, *scripts) as (world, _):
                assert (await ask(world)).status_code == 200
                rows = await ledger_rows(world.house)
                mine = [row for row in rows if row.tenant_id == world.tenant["id"]]
                won = [(row.attempt, row.output_tokens) for row in mine if row.winner]
                assert won == [(1 - number, 4)]
                assert len(mine) == 2

    run(scenario())


def test_when_both_fail_the_doubtful_end_is_told_and_nobody_is_asked_again(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        doubtful, busy = Script(delay_ms=80, status=500), Script(delay_ms=120, status=429)
        async with hedged(tmp_path, store_url, doubtful, busy, Script()) as (world, backends):
            answer = await ask(world)
            assert answer.status_code == 502
            assert answer.json()["error"]["code"] == "upstream_error"
            assert [len(each.book) for each in backends] == [1, 1, 0]
            assert [held for _, held in await spent(world.house)] == ["0", "0"]

    run(scenario())


def test_when_both_are_refused_the_plan_goes_on(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        busy = Script(delay_ms=80, status=429)
        async with hedged(tmp_path, store_url, busy, busy, Script()) as (world, backends):
            assert (await ask(world)).status_code == 200
            assert [len(each.book) for each in backends] == [1, 1, 1]
            won = [row.attempt for row in await ledger_rows(world.house) if row.winner]
            assert won == [2]

    run(scenario())


def test_a_client_that_leaves_both_is_charged_for_one(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with hedged(tmp_path, store_url, SLOW, SLOW) as (world, both):
            asked = asyncio.create_task(ask(world))
            while not all(each.book for each in both):
                await asyncio.sleep(0.005)
            asked.cancel()
            for each in both:
                await deserted(each)
            rows = sorted(await ledger_rows(world.house), key=lambda row: row.attempt)
            assert [(row.winner, row.charge_picos > 0) for row in rows] == [
                (True, True),
                (False, False),
            ]
            assert [row.end_by for row in rows] == ["client", "client"]
            assert [held for _, held in await spent(world.house)] == ["0", "0"]

    run(scenario())


def test_two_that_answer_in_the_same_moment_are_one_charge(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with hedged(tmp_path, store_url, Script(), Script()) as (world, both):
            for each in both:
                each.answering.clear()
            asked = [asyncio.create_task(ask(world)) for _ in range(3)]
            while not all(len(each.book) == 3 for each in both):
                await asyncio.sleep(0.005)
            for each in both:
                each.answering.set()
            assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 3
            rows = await ledger_rows(world.house)
            assert len(rows) == 6
            assert len({row.request_id for row in rows if row.winner}) == 3
            assert sum(row.winner for row in rows) == 3
            assert sum(row.charge_picos for row in rows if not row.winner) == 0
            truth = {row.provenance: row.output_tokens for row in rows if not row.winner}
            assert set(truth.items()) <= {("reported", 16), ("estimated", 0)}

    run(scenario())


def test_a_hold_in_slices_follows_the_answer_that_won(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        early = Script(stall_after_chunks=0)
        async with hedged(tmp_path, store_url, early, Script(tokens=40)) as (world, _):
            await world.house.policy(
                name="slices",
                scope={"key": world.key["id"]},
                budget={"hold": "sliced", "slice": 16, "least_output": 1},
            )
            await world.house.in_force()
            answer = await ask(world, max_tokens=60)
            assert answer.json()["usage"]["completion_tokens"] == 40
            rows = await ledger_rows(world.house)
            assert sorted((r.attempt, r.winner, r.output_tokens) for r in rows) == [
                (0, False, 0),
                (1, True, 40),
            ]

    run(scenario())


def test_a_backend_that_takes_only_so_many_is_asked_for_a_slot_first(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        scripts = SLOW, Script(tokens=7)
        async with hedged(tmp_path, store_url, *scripts, max_concurrency=1) as (world, (_, quick)):
            assert (await ask(world)).status_code == 200
            assert [entry.finished for entry in quick.book] == [True]

            quick.answering.clear()
            held = asyncio.create_task(ask(world))
            while len(quick.book) < 2:
                await asyncio.sleep(0.005)
            refused = asyncio.create_task(ask(world))
            await asyncio.sleep(0.3)
            assert quick.peak == 1, "it is full: nobody is hedged there"
            quick.answering.set()
            assert [(await each).status_code for each in (held, refused)] == [200, 200]
            told = set(await unhedged(world.house))
            assert told & {WHY_NOT["no_slot"], WHY_NOT["full"]}

    run(scenario())
