"""Ways to get more than was paid for, each tried on a budget that must hold."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.stores import spooled
from gateway.stores.spool import Checkpoint
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO: Any = [{"role": "user", "content": "hello there"}]


async def capped(house: House, backend: ScriptedBackend, amount: str) -> World:
    """One dollar a million tokens in and out, and a hard budget on the key."""
    world = await furnish(house, {"base_url": backend.base_url}, charge=("1", "1"))
    await house.make("budgets", scope={"key": world.key["id"]}, amount=amount, period="month")
    await house.in_force()
    return world


async def spent_tokens(house: House) -> int:
    """What the budget says, as tokens: at one dollar a million they are millionths."""
    await house.settled()
    (budget,) = (await house.look("budgets"))["items"]
    assert budget["held"] == "0"
    return round(float(budget["spent"]) * 1_000_000)


def test_a_batch_of_embeddings_is_held_for_every_input_of_it(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await capped(house, backend, "0.009")
            texts = ["word " * 1000] * 40
            answer = await house.ask(world.secret, "/v1/embeddings", model="chat", input=texts)
            assert answer.status_code == 429
            assert backend.book == []

    run(scenario())


@pytest.mark.parametrize(
    "field",
    ["n_predict", "num_predict", "max_new_tokens", "n_cmpl", "chat_template", "N", "Max_Tokens"],
)
def test_a_field_that_goes_around_the_clamp_is_refused_by_name(
    tmp_path: Path, store_url: str, field: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await capped(house, backend, "1")
            answer = await house.ask(
                world.secret, model="chat", messages=HELLO, max_tokens=5, **{field: 300}
            )
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == field
            assert backend.book == []

    run(scenario())


def test_a_tier_without_a_price_is_refused_however_it_is_spelt_and_the_standard_one_passes(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await capped(house, backend, "1")
            for tier in ("priority", "flex", "batch", "scale", "", 1):
                answer = await house.ask(
                    world.secret, model="chat", messages=HELLO, max_tokens=5, service_tier=tier
                )
                assert answer.status_code == 403
                error = answer.json()["error"]
                assert (error["code"], error["param"]) == ("unpriced_model", "service_tier")
            spelled: dict[str, Any] = {"Service_Tier": "priority"}
            answer = await house.ask(world.secret, model="chat", messages=HELLO, **spelled)
            assert answer.json()["error"]["param"] == "Service_Tier"
            assert backend.book == []
            for tier in ("default", "auto", None):
                answer = await house.ask(
                    world.secret, model="chat", messages=HELLO, max_tokens=5, service_tier=tier
                )
                assert answer.status_code == 200

    run(scenario())


def test_many_choices_reported_as_one_are_billed_as_many(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await capped(house, backend, "1")
            backend.script = Script(tokens=40, usage="lying", lie_percent=25)
            for stream in (False, True):
                before = await spent_tokens(house)
                await house.ask(
                    world.secret, model="chat", messages=HELLO, max_tokens=40, n=4, stream=stream
                )
                assert await spent_tokens(house) - before >= 160

    run(scenario())


def test_media_we_do_not_know_is_held_as_a_full_context(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await capped(house, backend, "0.005")
            for kind in ("video_url", "audio_url", "anything"):
                part = {"type": kind, kind: {"url": "http://127.0.0.1/x"}}
                answer = await house.ask(
                    world.secret, model="chat", messages=[{"role": "user", "content": [part]}]
                )
                assert answer.status_code == 429, kind
            assert backend.book == []

    run(scenario())


def test_a_stream_leaves_checkpoints_for_whoever_bills_a_dead_worker(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await capped(house, backend, "1")
            backend.script = Script(tokens=1200)
            answer = await house.ask(
                world.secret, model="chat", messages=HELLO, max_tokens=1200, stream=True
            )
            assert answer.status_code == 200
            await house.settled()

    run(scenario())
    records = [
        record
        for segment in sorted((tmp_path / "spool").rglob("*.spool"))
        for record in spooled.read(segment)
    ]
    marks = [record.output_tokens for record in records if isinstance(record, Checkpoint)]
    assert len(marks) >= 3
    assert marks == sorted(marks)
    assert marks[-1] >= 900


def test_text_beyond_what_is_kept_for_counting_is_still_billed(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await capped(house, backend, "1")
            word = " " + "word " * 60
            backend.script = Script(tokens=1500, word=word, usage="missing")
            await house.ask(
                world.secret, model="chat", messages=HELLO, max_tokens=4000, stream=True
            )
            billed = await spent_tokens(house)
            assert 90_000 <= billed <= 92_000  # came, far beyond what was granted

    run(scenario())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("percent", [0, 1, 1000, 100_000])
def test_figures_that_cannot_be_true_are_set_aside_for_our_own_count(
    tmp_path: Path, store_url: str, percent: int, stream: bool
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await capped(house, backend, "1")
            backend.script = Script(tokens=200, usage="lying", lie_percent=percent)
            await house.ask(
                world.secret, model="chat", messages=HELLO, max_tokens=200, stream=stream
            )
            assert 200 <= await spent_tokens(house) <= 220

    run(scenario())


def test_a_backend_that_stays_after_done_neither_delays_nor_spoils_the_end(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await capped(house, backend, "1")
            chunk = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
            usage = {"choices": [], "usage": {"prompt_tokens": 6, "completion_tokens": 1}}
            events = b"".join(
                b"data: %s\n\n" % part
                for part in (json.dumps(chunk).encode(), json.dumps(usage).encode(), b"[DONE]")
            )
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            framing = b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(events), events)
            backend.script = Script(raw=(head + framing).decode())
            began = time.monotonic()
            answer = await house.ask(world.secret, model="chat", messages=HELLO, stream=True)
            assert answer.text.endswith("data: [DONE]\n\n")
            assert await spent_tokens(house) == 7
            assert time.monotonic() - began < 30

    run(scenario())


def test_a_backend_s_words_are_passed_on_without_its_names(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await capped(house, backend, "1")
            said = f"bad temperature for backend-0 at {backend.base_url} (127.0.0.1)"
            backend.script = Script(status=400, body=json.dumps({"error": {"message": said}}))
            error = (await house.ask(world.secret, model="chat", messages=HELLO)).json()["error"]
            assert "temperature" in error["message"]
            for name in ("backend-0", "127.0.0.1", str(backend.port)):
                assert name not in error["message"]
            too_long = {"error": {"message": "n", "type": "exceed_context_size_error"}}
            backend.script = Script(status=400, body=json.dumps(too_long))
            error = (await house.ask(world.secret, model="chat", messages=HELLO)).json()["error"]
            assert error["code"] == "context_length_exceeded"

    run(scenario())


def test_bytes_that_are_no_text_never_reach_a_backend(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await capped(house, backend, "1")
            body = b'{"model":"chat","messages":[{"role":"user","content":"\xff\xfe"}]}'
            headers = {"authorization": f"Bearer {world.secret}"}
            answer = await house.client.post("/v1/chat/completions", content=body, headers=headers)
            assert answer.status_code == 400
            assert backend.book == []

    run(scenario())


def test_a_prompt_far_beyond_the_window_is_refused_before_it_leaves(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await capped(house, backend, "1")
            long = [{"role": "user", "content": "word " * 20_000}]
            answer = await house.ask(world.secret, model="chat", messages=long)
            assert answer.json()["error"]["code"] == "context_length_exceeded"
            assert backend.book == []

    run(scenario())


def test_a_plain_answer_nobody_waits_for_frees_its_place(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await capped(house, backend, "1")
            head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900000\r\n"
            backend.script = Script(raw=head + "\r\n" + "x" * 600_000)
            asking = asyncio.create_task(house.ask(world.secret, model="chat", messages=HELLO))
            while not (backend.book and backend.book[0].finished):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            asking.cancel()
            while backend.connections:
                await asyncio.sleep(0.01)
            await house.settled()

    run(scenario())
