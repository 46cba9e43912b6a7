"""Idempotency keys: one dispatch and one bill, whoever repeats what, and when."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import redis

from tests.booked import ledger_rows
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]
BODY: dict[str, Any] = {"model": "chat", "messages": HELLO, "max_tokens": 50}
CHAT = "/v1/chat/completions"

Story = Callable[[House, World, ScriptedBackend], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def played(tmp_path: Path, store_url: str) -> Play:
    """Plays a story in a house with one backend; `stored`: answers are kept by policy."""

    def play(story: Story, *, stored: bool = False, **settings: str) -> None:
        async def whole() -> None:
            async with AsyncExitStack() as stack:
                backend = await stack.enter_async_context(ScriptedBackend())
                house = await stack.enter_async_context(
                    open_house(tmp_path, store_url, **settings, STORE_TIMEOUT_MS="30000")
                )
                world = await furnish(house, {"base_url": backend.base_url})
                if stored:
                    await house.policy(
                        name="kept",
                        scope={"tenant": world.tenant["id"]},
                        idempotency={"store_answers": "on", "keep_seconds": 600},
                    )
                    await house.in_force()
                await story(house, world, backend)

        run(whole())

    return play


async def ask(
    house: House, world: World, key: str, path: str = CHAT, **changes: Any
) -> httpx.Response:
    headers = {"authorization": f"Bearer {world.secret}", "idempotency-key": key}
    return await house.client.post(path, json=BODY | changes, headers=headers)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_five_hundred_at_once_are_one_dispatch_and_one_bill(
    played: Play, figure: Callable[[str], None]
) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        backend.answering.clear()
        asking = [asyncio.create_task(ask(house, world, "k1")) for _ in range(500)]
        while sum(one.done() for one in asking) < 499:
            await asyncio.sleep(0.01)
        backend.answering.set()
        answers = await asyncio.gather(*asking)
        assert Counter(one.status_code for one in answers) == {200: 1, 409: 499}
        told = next(one for one in answers if one.status_code == 409)
        served = next(one for one in answers if one.status_code == 200)
        assert code(told) == (409, "idempotency_in_flight")
        assert told.headers["retry-after"] == "1"
        assert "x-should-retry" not in told.headers
        assert told.headers["x-meterhouse-original-request"] == served.headers["x-request-id"]
        assert len(backend.book) == 1
        (row,) = await ledger_rows(house)
        assert row.request_id == served.headers["x-request-id"]
        figure(f"500 at once with one key: {len(backend.book)} dispatch, 1 row, 499 x 409")

    played(story)


def test_a_finished_request_is_told_by_its_id_and_not_repeated(played: Play) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        first = await ask(house, world, "k1")
        await house.settled()
        again = await ask(house, world, "k1")
        assert (first.status_code, *code(again)) == (200, 409, "idempotency_finished")
        request_id = first.headers["x-request-id"]
        assert again.headers["x-meterhouse-original-request"] == request_id
        assert request_id in again.json()["error"]["message"]
        assert again.headers["x-should-retry"] == "false"
        assert len(backend.book) == len(await ledger_rows(house)) == 1

    played(story)


def test_a_key_that_comes_with_another_request_is_refused(played: Play) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        backend.answering.clear()
        first = asyncio.create_task(ask(house, world, "k1"))
        while not backend.book:
            await asyncio.sleep(0.005)
        during = await ask(house, world, "k1", max_tokens=51)
        backend.answering.set()
        await first
        after = await ask(house, world, "k1", max_tokens=51)
        elsewhere = await ask(house, world, "k1", "/v1/completions", prompt="hello")
        for answer in (during, after, elsewhere):
            assert code(answer) == (422, "idempotency_mismatch")
            assert answer.json()["error"]["param"] == "idempotency-key"
            assert answer.headers["x-should-retry"] == "false"
        assert len(backend.book) == 1

    played(story)


def test_a_key_means_something_only_for_its_application_key(played: Play) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        other = await house.make("keys", team_id=world.squad["id"], name="other")
        await house.in_force()
        headers = {"authorization": f"Bearer {other['secret']}", "idempotency-key": "k1"}
        mine = await ask(house, world, "k1")
        theirs = await house.client.post(CHAT, json=BODY, headers=headers)
        assert (mine.status_code, theirs.status_code, len(backend.book)) == (200, 200, 2)

    played(story)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stored_answer_is_given_again_byte_for_byte_and_bills_nothing(
    played: Play, store_url: str, stream: bool
) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        budget = await house.make(
            "budgets", scope={"key": world.key["id"]}, amount="1", period="month"
        )
        await house.in_force()
        backend.script = Script(tokens=20, word="vivid")
        first = await ask(house, world, "k1", stream=stream)
        await house.settled()
        spent = (await house.look(f"budgets/{budget['id']}"))["spent"]
        again = await ask(house, world, "k1", stream=stream)
        assert (first.status_code, again.status_code) == (200, 200)
        assert b"vivid" in again.content
        assert again.content == first.content
        for name in ("content-type", "x-meterhouse-backend-region"):
            assert again.headers[name] == first.headers[name]
        assert again.headers["x-meterhouse-replayed"] == "1"
        assert again.headers["x-meterhouse-original-request"] == first.headers["x-request-id"]
        assert again.headers["x-request-id"] != first.headers["x-request-id"]
        assert "x-meterhouse-replayed" not in first.headers
        after = await house.look(f"budgets/{budget['id']}")
        assert (after["spent"], after["held"]) == (spent, "0")
        assert len(backend.book) == len(await ledger_rows(house)) == 1
        with redis.Redis.from_url(store_url) as client:
            kept = [client.dump(key) for key in client.scan_iter("*:once:*")]
        assert len(kept) == 3  # the index, the ticket, the answer
        assert not any(b"vivid" in value or b"choices" in value for value in kept)

    played(story, stored=True)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_of_a_sliced_hold_is_stored_like_any_other(played: Play, stream: bool) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        await house.policy(
            name="sliced", scope={"tenant": world.tenant["id"]}, budget={"hold": "sliced"}
        )
        await house.make("budgets", scope={"key": world.key["id"]}, amount="1", period="month")
        await house.in_force()
        first = await ask(house, world, "k1", stream=stream)
        await house.settled()
        again = await ask(house, world, "k1", stream=stream)
        assert again.headers["x-meterhouse-replayed"] == "1"
        assert again.content == first.content
        assert again.headers["content-type"] == first.headers["content-type"]
        assert len(backend.book) == 1

    played(story, stored=True)


def test_without_a_policy_nothing_of_an_answer_is_stored(played: Play, store_url: str) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        await ask(house, world, "k1")
        await house.settled()
        with redis.Redis.from_url(store_url) as client:
            assert list(client.scan_iter("*answer*")) == []

    played(story)


def test_one_policy_that_says_off_is_enough(played: Play) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        await house.policy(
            name="mine", scope={"key": world.key["id"]}, idempotency={"store_answers": "off"}
        )
        await house.in_force()
        await ask(house, world, "k1")
        await house.settled()
        assert code(await ask(house, world, "k1")) == (409, "idempotency_finished")

    played(story, stored=True)


def test_the_oldest_stored_answers_make_room(played: Play, store_url: str) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        for number in range(5):
            await ask(house, world, f"k{number}")
            await house.settled()
        statuses = [(await ask(house, world, f"k{number}")).status_code for number in range(5)]
        assert statuses == [409, 409, 200, 200, 200]
        with redis.Redis.from_url(store_url) as client:
            assert int(client.hget("mh:{s00}:answers:size", "")) <= 3_000
        assert len(backend.book) == 5

    played(story, stored=True, STORED_ANSWER_BYTES="3000")


def test_an_application_key_has_so_many_idempotency_keys_and_no_more(played: Play) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        answers = [await ask(house, world, f"k{number}") for number in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 429]
        assert code(answers[2]) == (429, "rate_limit_exceeded")
        assert "idempotency keys" in answers[2].json()["error"]["message"]
        assert int(answers[2].headers["retry-after"]) <= 3600
        assert answers[2].headers["x-should-retry"] == "false"
        without = await house.ask(world.secret, **BODY)
        assert without.status_code == 200

    played(story, IDEMPOTENCY_KEYS="2", IDEMPOTENCY_SECONDS="3600")


@pytest.mark.parametrize("status", [429, 503, 400])
def test_what_a_backend_turned_away_may_be_asked_again(played: Play, status: int) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        backend.scripts = [Script(status=status)]
        first = await ask(house, world, "k1")
        await house.settled()
        again = await ask(house, world, "k1")
        assert (first.status_code, again.status_code) == (400 if status == 400 else 503, 200)
        billed = [row for row in await ledger_rows(house) if row.charge_picos]
        assert len(billed) == 1

    played(story)


@pytest.mark.parametrize("script", [Script(status=500), Script(cut_at_byte=20)])
def test_what_may_have_been_processed_is_not_asked_again(played: Play, script: Script) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        backend.scripts = [script]
        first = await ask(house, world, "k1")
        await house.settled()
        assert first.status_code == 502
        assert code(await ask(house, world, "k1")) == (409, "idempotency_finished")
        assert len(backend.book) == 1

    played(story, stored=True)


def test_what_was_refused_before_it_was_sent_may_be_asked_again(played: Play) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        limit = await house.make("limits", scope={"key": world.key["id"]}, concurrent_requests=1)
        await house.in_force()
        backend.answering.clear()
        first = asyncio.create_task(ask(house, world, "k1"))
        while not backend.book:
            await asyncio.sleep(0.005)
        crowded = await ask(house, world, "k2")
        backend.answering.set()
        await first
        await house.settled()
        assert crowded.status_code == 429
        assert (await ask(house, world, "k2")).status_code == 200
        assert limit["concurrent_requests"] == 1

    played(story)


def test_a_client_that_hung_up_hears_that_its_request_is_over(played: Play) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        backend.script = Script(tokens=40, chunk_delay_ms=20)
        headers = {"authorization": f"Bearer {world.secret}", "idempotency-key": "k1"}
        body = BODY | {"stream": True}
        async with house.client.stream("POST", CHAT, json=body, headers=headers) as answer:
            async for _ in answer.aiter_lines():
                break
        await house.settled()
        assert code(await ask(house, world, "k1", stream=True)) == (409, "idempotency_finished")
        (row,) = await ledger_rows(house)
        assert (row.end_by, row.winner) == ("client", True)

    played(story, stored=True)


@pytest.mark.parametrize(
    "headers",
    [
        [("idempotency-key", "")],
        [("idempotency-key", "x" * 256)],
        [("idempotency-key", "two words")],
        [("idempotency-key", "one"), ("idempotency-key", "one")],
    ],
)
def test_a_key_that_is_none_is_refused(played: Play, headers: list[tuple[str, str]]) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        sent = [("authorization", f"Bearer {world.secret}"), *headers]
        answer = await house.client.post(CHAT, json=BODY, headers=sent)
        assert code(answer) == (400, "invalid_request")
        assert answer.json()["error"]["param"] == "idempotency-key"
        assert backend.book == []

    played(story)


def test_a_key_costs_no_further_round_trip(played: Play, store_url: str) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        calls = []
        with redis.Redis.from_url(store_url) as client:
            for headers in ({}, {"idempotency-key": "k1"}):
                await house.settled()
                client.config_resetstat()
                given = {"authorization": f"Bearer {world.secret}"} | headers
                answer = await house.client.post(CHAT, json=BODY, headers=given)
                assert answer.status_code == 200
                await house.settled()
                stats: Any = client.info("commandstats")
                calls.append(stats["cmdstat_evalsha"]["calls"])
        assert calls == [2, 2]

    played(story)


def test_the_official_sdk_repeats_with_a_key_until_it_has_the_answer(played: Play) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        async with openai.AsyncOpenAI(
            base_url=f"{house.url}/v1", api_key=world.secret, max_retries=4
        ) as sdk:

            async def create() -> str | None:
                done = await sdk.chat.completions.create(
                    model="chat",
                    messages=[{"role": "user", "content": "hello"}],
                    extra_headers={"idempotency-key": "k1"},
                )
                return done.choices[0].message.content

            backend.script = Script(tokens=5, delay_ms=700)
            first, second = await asyncio.gather(create(), create())
        assert first == second
        assert len(backend.book) == len(await ledger_rows(house)) == 1

    played(story, stored=True)


def test_an_sdk_that_lost_patience_does_not_pay_twice(played: Play) -> None:
    """Its own repetition carries the header it was given, and nothing else that could tell."""

    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        backend.script = Script(tokens=5, delay_ms=5_000)
        async with openai.AsyncOpenAI(
            base_url=f"{house.url}/v1", api_key=world.secret, max_retries=2, timeout=0.5
        ) as sdk:
            with pytest.raises(openai.ConflictError) as caught:
                await sdk.chat.completions.create(
                    model="chat",
                    messages=[{"role": "user", "content": "hello"}],
                    extra_headers={"idempotency-key": "k1"},
                )
        assert caught.value.code == "idempotency_finished"
        assert len(backend.book) == len(await ledger_rows(house)) == 1

    played(story)
