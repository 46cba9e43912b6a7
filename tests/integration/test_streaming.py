"""Streams through the whole gateway: order, endings, hang-ups, what is metered of each."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tests.booked import ledger_rows
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]


async def events_of(house: House, key: str, **body: Any) -> tuple[httpx.Response, list[bytes]]:
    """All events of a stream, raw."""
    request = {"model": "chat", "messages": HELLO, "stream": True} | body
    headers = {"authorization": f"Bearer {key}"}
    async with house.client.stream(
        "POST", "/v1/chat/completions", json=request, headers=headers
    ) as answer:
        raw = await answer.aread()
    return answer, [event for event in raw.split(b"\n\n") if event]


async def spent(house: House, world: World) -> tuple[str, str]:
    """(spent, held) of the key's budget."""
    await house.settled()
    (budget,) = (await house.look("budgets"))["items"]
    return budget["spent"], budget["held"]


async def with_budget(house: House, backend: ScriptedBackend) -> World:
    world = await furnish(house, {"base_url": backend.base_url})
    await house.make("budgets", scope={"key": world.key["id"]}, amount="10.00", period="month")
    await house.in_force()
    return world


def test_a_stream_passes_event_by_event_and_hides_the_usage_nobody_asked_for(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await with_budget(house, backend)
            backend.script = Script(tokens=12)

            answer, events = await events_of(house, world.secret)

            assert answer.headers["content-type"].startswith("text/event-stream")
            assert backend.book[0].body["stream_options"] == {"include_usage": True}
            assert events[-1] == b"data: [DONE]"
            assert not any(b'"usage":{' in event for event in events)
            assert sum(b'"content":' in event for event in events) >= 12
            assert (await spent(house, world)) == (f"0.{6 * 3 + 12 * 15:06d}", "0")

    run(scenario())


def test_a_backend_that_ends_its_stream_by_closing_is_no_client_that_hung_up(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await with_budget(house, backend)
            # Long enough for a hang-up to be watched for, and open for a moment after [DONE].
            backend.script = Script(
                tokens=12, chunk_delay_ms=10, close=True, hang_up=True, hang_up_after_ms=50
            )

            for _ in range(3):
                _, events = await events_of(house, world.secret)
                assert events[-1] == b"data: [DONE]"

            rows = await ledger_rows(house)
            assert [(row.status, row.end_by) for row in rows] == [(200, "upstream")] * 3

    run(scenario())


def test_a_client_that_asks_for_usage_gets_the_usage_chunk(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await with_budget(house, backend)
            _, events = await events_of(house, world.secret, stream_options={"include_usage": True})
            usage = [msgspec.json.decode(e[6:])["usage"] for e in events if b'"usage":{' in e]
            assert usage[-1]["completion_tokens"] == 16

    run(scenario())


def test_a_stream_cut_by_the_backend_ends_with_an_error_and_no_done(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await with_budget(house, backend)
            backend.script = Script(tokens=50, cut_after_chunks=10)

            _, events = await events_of(house, world.secret)

            assert b'"upstream_error"' in events[-1]
            assert b"data: [DONE]" not in events
            money, held = await spent(house, world)
            assert held == "0"
            # Delivered text is counted: the prompt by our rule, and the words that came.
            assert float(money) > 0

    run(scenario())


def test_an_error_inside_the_stream_is_told_and_never_followed_by_done(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await with_budget(house, backend)
            backend.script = Script(tokens=50, error_after_chunks=5)
            _, events = await events_of(house, world.secret)
            assert b'"error"' in events[-1]
            assert b"data: [DONE]" not in events

    run(scenario())


def test_a_stream_that_breaks_before_its_first_event_is_a_plain_error(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await with_budget(house, backend)
            backend.script = Script(tokens=50, cut_after_chunks=0)
            answer, _ = await events_of(house, world.secret)
            assert answer.status_code == 502
            assert answer.json()["error"]["code"] == "upstream_error"
            assert answer.headers["x-should-retry"] == "false"
            assert (await spent(house, world)) == ("0", "0")

    run(scenario())


def test_a_client_that_hangs_up_is_metered_and_the_backend_is_let_go(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await with_budget(house, backend)
            backend.script = Script(tokens=500, chunk_delay_ms=5)
            headers = {"authorization": f"Bearer {world.secret}"}
            body = {"model": "chat", "messages": HELLO, "stream": True}
            async with house.client.stream(
                "POST", "/v1/chat/completions", json=body, headers=headers
            ) as answer:
                seen = 0
                async for line in answer.aiter_lines():
                    seen += line.startswith("data:")
                    if seen == 20:
                        break
            while not backend.book[0].client_disconnected:
                await asyncio.sleep(0.01)
            assert backend.book[0].generated_tokens < 500
            money, held = await spent(house, world)
            assert held == "0"
            generated = backend.book[0].generated_tokens
            assert 15 * 15 <= round(float(money) * 1e6) - 9 * 3 <= generated * 15

    run(scenario())


def test_a_client_that_hangs_up_before_the_answer_pays_for_its_prompt_alone(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await with_budget(house, backend)
            backend.script = Script(delay_ms=5_000)
            asking = asyncio.create_task(house.ask(world.secret, model="chat", messages=HELLO))
            while not backend.book:
                await asyncio.sleep(0.01)
            asking.cancel()
            while not backend.book[0].client_disconnected:
                await asyncio.sleep(0.01)
            assert (await spent(house, world)) == (f"0.{9 * 3:06d}", "0")

    run(scenario())


def test_draining_tells_open_streams_why_they_end(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await with_budget(house, backend)
            backend.script = Script(tokens=500, chunk_delay_ms=20)
            asking = asyncio.create_task(events_of(house, world.secret))
            while not house.data.plane.in_flight:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            await house.data.plane.drain(0)
            _, events = await asking
            assert b'"server_restarting"' in events[-1]
            assert (await spent(house, world))[1] == "0"

    run(scenario())
