"""Holds that grow with their stream: extended ahead of need, and cut where the money ends."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.booked import ledger_rows
from tests.scripted_answers import Script
from tests.slicing import CHAT, SLICE, Sliced, Story, sliced_house

Play = Callable[..., None]


@pytest.fixture
def played(tmp_path: Path, store_url: str) -> Play:
    def play(story: Story, **rules: Any) -> None:
        sliced_house(tmp_path, store_url, story, **rules)

    return play


def test_a_stream_holds_a_slice_ahead_and_ends_as_the_backend_ends_it(played: Play) -> None:
    async def story(sliced: Sliced) -> None:
        await sliced.budget(1000)
        sliced.backend.script = Script(tokens=200, chunk_delay_ms=1)
        seen = []

        async with sliced.stream(max_tokens=900) as stream:
            while stream.tokens < 150:
                await stream.words(stream.tokens + 10)
                seen.append((stream.tokens, (await sliced.held())[1]))
            await stream.read()

        assert stream.done
        assert stream.tokens == 200
        assert stream.events[-1]["choices"][0]["finish_reason"] == "stop"
        assert "meterhouse" not in stream.raw.decode()
        # In flight are some words that we have not read yet, hence a slice more than two.
        assert all(read <= held <= read + 3 * SLICE for read, held in seen), seen
        assert sliced.backend.book[0].max_tokens == 900
        assert await sliced.left() == (200, 0)
        (row,) = await ledger_rows(sliced.house)
        assert (row.output_tokens, row.provenance, row.end_by) == (200, "reported", "upstream")

    played(story)


def test_a_stream_is_cut_where_its_budget_ends_and_says_so(
    played: Play, figure: Callable[[str], None]
) -> None:
    async def story(sliced: Sliced) -> None:
        await sliced.budget(100)
        sliced.backend.script = Script(tokens=900, chunk_delay_ms=2)

        async with sliced.stream(max_tokens=900, stream_options={"include_usage": True}) as stream:
            await stream.read()

        (entry,) = sliced.backend.book
        assert stream.done
        assert stream.tokens == 100
        *_, last, usage = stream.events
        assert last["choices"] == [
            {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
        ]
        assert last["meterhouse"]["code"] == "insufficient_quota"
        assert "cut after 100 output tokens" in last["meterhouse"]["message"]
        assert (last["id"], last["model"]) == (stream.events[0]["id"], stream.events[0]["model"])
        assert usage["usage"]["completion_tokens"] == 100
        assert await sliced.left() == (100, 0)
        (row,) = await ledger_rows(sliced.house)
        assert (row.output_tokens, row.provenance, row.end_by) == (100, "counted", "limit")
        assert row.input_tokens == usage["usage"]["prompt_tokens"]
        assert entry.client_disconnected
        ahead = entry.generated_tokens - 100
        assert ahead <= 20
        figure(
            f"a budget of 100 tokens: 100 relayed and billed, 0 beyond it; at 500 tokens/s the"
            f" backend had generated {ahead} more when it was let go"
        )

    played(story)


def test_a_backend_that_sends_many_tokens_at_once_is_not_paid_beyond_the_budget(
    played: Play, figure: Callable[[str], None]
) -> None:
    async def story(sliced: Sliced) -> None:
        await sliced.budget(100)
        sliced.backend.script = Script(
            tokens=900, chunk_delay_ms=2, word=" the of and to in is that"
        )

        async with sliced.stream(max_tokens=900) as stream:
            await stream.read()

        assert stream.tokens == 14  # of seven tokens each; a fifteenth would have been 105
        assert stream.events[-1]["usage"]["completion_tokens"] == 98
        assert await sliced.left() == (98, 0)
        figure("events of 7 tokens, a budget of 100: 98 relayed and billed")

    played(story)


def test_every_budget_is_spent_to_its_last_token(played: Play) -> None:
    async def story(sliced: Sliced) -> None:
        sliced.backend.script = Script(tokens=900)  # as fast as it can
        for tokens in (1, SLICE - 1, SLICE, SLICE + 1, 100, 131, 132, 133):
            await sliced.newcomer(tokens)

            async with sliced.stream(max_tokens=900) as stream:
                await stream.read()

            assert (stream.tokens, stream.done) == (tokens, True)
            assert await sliced.left() == (tokens, 0)

    played(story)


def test_a_client_that_does_not_stream_is_answered_as_ever(played: Play) -> None:
    async def story(sliced: Sliced) -> None:
        await sliced.budget(2000)
        sliced.backend.script = Script(tokens=200, tool_call=True)

        told = await sliced.ask(max_tokens=900, n=2)

        assert sliced.backend.book[0].stream
        assert sliced.backend.book[0].body["stream_options"] == {"include_usage": True}
        assert told.headers["content-type"] == "application/json"
        answer = told.json()
        assert answer["object"] == "chat.completion"
        assert [choice["finish_reason"] for choice in answer["choices"]] == ["tool_calls"] * 2
        (call,) = answer["choices"][1]["message"]["tool_calls"]
        assert call["function"]["name"] == "look_up"
        assert len(call["function"]["arguments"].split()) == 200
        assert answer["usage"]["completion_tokens"] == 400
        assert await sliced.left() == (400, 0)

    played(story)


def test_a_client_that_does_not_stream_gets_what_could_be_paid(played: Play) -> None:
    async def story(sliced: Sliced) -> None:
        await sliced.budget(100)
        sliced.backend.script = Script(tokens=900, chunk_delay_ms=1)

        told = await sliced.ask(max_tokens=900)

        answer = told.json()
        (choice,) = answer["choices"]
        assert (told.status_code, choice["finish_reason"]) == (200, "length")
        assert len(choice["message"]["content"].split()) == 100
        assert answer["usage"]["completion_tokens"] == 100
        assert answer["meterhouse"]["code"] == "insufficient_quota"
        assert sliced.backend.book[0].generated_tokens < 150
        assert await sliced.left() == (100, 0)

    played(story)


def test_several_choices_share_what_is_held(played: Play) -> None:
    async def story(sliced: Sliced) -> None:
        await sliced.budget(200)
        sliced.backend.script = Script(tokens=900, chunk_delay_ms=1)

        async with sliced.stream(max_tokens=300, n=3) as stream:
            await stream.read()

        # Three at a time: a slice that cannot be paid for all of them is not taken.
        assert stream.tokens == 198
        ends = stream.events[-1]["choices"]
        assert [(each["index"], each["finish_reason"]) for each in ends] == [
            (0, "length"),
            (1, "length"),
            (2, "length"),
        ]
        assert await sliced.left() == (198, 0)

    played(story)


def test_money_that_comes_free_meanwhile_saves_a_stream(played: Play) -> None:
    async def story(sliced: Sliced) -> None:
        await sliced.budget(120)
        busy_one = Script(tokens=110, chunk_delay_ms=5)
        sliced.backend.scripts = [busy_one, Script(tokens=2, stall_after_chunks=1)]
        idle, busy = sliced.stream(max_tokens=900), sliced.stream(max_tokens=900)

        async with busy:
            async with idle:  # holds a slice and uses one token of it
                await busy.words(SLICE)
            await busy.read()

        assert (busy.tokens, busy.done) == (110, True)
        assert busy.events[-1]["choices"][0]["finish_reason"] == "stop"

    played(story)


def test_what_can_be_outrun_unseen_is_held_in_full(played: Play) -> None:
    async def story(sliced: Sliced) -> None:
        await sliced.budget(1000)
        sliced.backend.answering.clear()
        cases: list[tuple[dict[str, Any], int]] = [
            ({}, SLICE),
            ({"max_tokens": 10}, 10),
            ({"prediction": {"type": "content", "content": "x"}}, 300),
        ]
        for body, expected in cases:
            asking = asyncio.create_task(sliced.ask(**{"max_tokens": 300} | body))
            before = len(sliced.backend.book)
            while len(sliced.backend.book) == before:
                await asyncio.sleep(0.005)
            assert (await sliced.held())[1] == expected
            assert sliced.backend.book[-1].stream == (expected == SLICE)
            asking.cancel()
            await asyncio.wait([asking])
            await sliced.left()

    played(story)


def test_without_a_budget_there_is_nothing_to_slice(played: Play) -> None:
    async def story(sliced: Sliced) -> None:
        await sliced.ask(max_tokens=300)
        assert not sliced.backend.book[0].stream

    played(story)


def test_a_store_that_does_not_answer_cuts_a_stream_with_an_error(
    tmp_path: Path,
) -> None:
    async def story(sliced: Sliced) -> None:
        await sliced.budget(1000)
        sliced.backend.script = Script(tokens=900, chunk_delay_ms=2)

        async with sliced.stream(max_tokens=900) as stream:
            await stream.words(5)
            store.freeze()
            try:
                await stream.read()
            finally:
                store.thaw()

        assert not stream.done
        assert stream.events[-1]["error"]["code"] == "quota_unavailable"
        assert SLICE <= stream.tokens <= 2 * SLICE
        assert await sliced.left() == (stream.tokens, 0)

    with servers.store_server(servers.valkey_binary()) as store:
        sliced_house(tmp_path, store.url, story, store_timeout_ms=1_000)


def test_fifty_streams_on_one_budget_spend_it_and_no_more(
    played: Play, figure: Callable[[str], None]
) -> None:
    async def story(sliced: Sliced) -> None:
        await sliced.budget(5000, team=sliced.world.team["id"])
        sliced.backend.script = Script(tokens=900, chunk_delay_ms=5)

        async def one() -> Any:
            async with sliced.stream(max_tokens=900) as stream:
                return await stream.read()

        streams = await asyncio.gather(*(one() for _ in range(50)))

        relayed = sum(stream.tokens for stream in streams)
        generated = sum(entry.generated_tokens for entry in sliced.backend.book)
        spent, held = await sliced.left()
        assert all(stream.done for stream in streams)
        assert (spent, held) == (5000, 0)
        assert relayed == 5000
        assert all(entry.client_disconnected for entry in sliced.backend.book)
        figure(
            f"50 streams of 900 tokens on a budget of 5000: {relayed} relayed, {spent} billed,"
            f" {generated - relayed} generated beyond it by 50 backends' streams"
        )

    played(story)


def test_a_client_that_leaves_at_any_moment_leaves_no_hold(played: Play) -> None:
    async def story(sliced: Sliced) -> None:
        sliced.backend.script = Script(tokens=900, chunk_delay_ms=1)
        for after in range(0, 100, 7):
            await sliced.newcomer(100)

            async with sliced.stream(max_tokens=900) as stream:
                await stream.words(after)

            spent, held = await sliced.left()
            assert held == 0
            assert min(after, 1) <= spent <= 100

    played(story)


def test_an_answer_that_was_put_together_is_kept_and_replayed(played: Play) -> None:
    async def story(sliced: Sliced) -> None:
        await sliced.budget(1000)
        world, house = sliced.world, sliced.house
        await house.policy(
            name="kept", scope={"tenant": world.tenant["id"]}, idempotency={"store_answers": "on"}
        )
        await house.in_force()
        headers = {"authorization": f"Bearer {world.secret}", "idempotency-key": "k"}
        body = {"model": "chat", "messages": [{"role": "user", "content": "a"}], "max_tokens": 90}

        first = await house.client.post(CHAT, json=body, headers=headers)
        await house.settled()
        again = await house.client.post(CHAT, json=body, headers=headers)

        assert again.headers["x-meterhouse-replayed"] == "1"
        assert (again.headers["content-type"], again.content) == ("application/json", first.content)

    played(story)
