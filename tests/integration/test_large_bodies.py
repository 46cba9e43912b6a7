"""Large bodies: those nobody can mean are refused by name, and none stops the event loop."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.house import House, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = b'{"role":"user","content":"hello"}'
# The client, the backend and the gateway share the loop: all their copying is in the figure.
LONGEST_STOP_S = 0.8


class Pulse:
    """How long the event loop worked at worst without looking up: its own time, as that of others
    on a busy machine is no fault of ours.
    """

    worst_s = 0.0

    async def beat(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.005)
            self.worst_s = max(self.worst_s, time.thread_time() - before)


@asynccontextmanager
async def pulse() -> AsyncIterator[Pulse]:
    found = Pulse()
    beating = asyncio.create_task(found.beat())
    try:
        yield found
    finally:
        beating.cancel()


async def send(house: House, secret: str, body: bytes, path: str = "chat/completions") -> Any:
    headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
    return await house.client.post(f"/v1/{path}", content=body, headers=headers)


@pytest.mark.parametrize(
    ("path", "rest", "param"),
    [
        (
            "chat/completions",
            b'"messages":[{"role":"file","content":"\\u0000"},' + b"{}," * 8_000_000 + b"{}]",
            "messages",
        ),
        (
            "chat/completions",
            b'"messages":[{"role":"user","content":[' + b"{}," * 8_000_000 + b"{}]}]",
            "messages",
        ),
        (
            "chat/completions",
            b'"messages":[%s],' % HELLO + b",".join(b'"k%d":1' % n for n in range(1_500_000)),
            "k996",
        ),
        ("chat/completions", b'"messages":[' + HELLO + (b"," + HELLO) * 20_000 + b"]", "messages"),
        ("completions", b'"prompt":[' + b"1," * 11_000_000 + b"1]", "prompt"),
        ("completions", b'"prompt":[' + b'"",' * 8_000_000 + b'""]', "prompt"),
        ("embeddings", b'"input":[' + b"[1,2]," * 20_000 + b"[1]]", "input"),
        (
            "chat/completions",
            b'"messages":[%s],' % HELLO + b",".join(b'"k%d":1' % n for n in range(1_000)),
            "k996",
        ),
    ],
    ids=["messages", "parts", "fields", "one message", "ids", "prompts", "inputs", "few fields"],
)
def test_more_things_than_a_request_may_hold_are_refused_by_name_and_at_once(
    tmp_path: Path, store_url: str, path: str, rest: bytes, param: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            body = b'{"model":"chat","max_tokens":1,"n":1,' + rest + b"}"
            async with pulse() as found:
                answer = await send(house, world.secret, body, path)
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["param"] == param
            assert answer.json()["error"]["code"] == "invalid_request"
            assert found.worst_s < LONGEST_STOP_S
            assert backend.book == []

    run(scenario())


def test_large_bodies_that_can_be_meant_pass_unchanged(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            backend.script = Script(tokens=2)
            model = {"context_window": 2_000_000}
            world = await furnish(
                house, {"base_url": backend.base_url}, charge=("0", "0"), model=model
            )
            long = [{"role": "user", "content": 'a, {"b"}\n' * 200_000}]
            many = [{"role": "user", "content": f"{n}, hello"} for n in range(20_000)]
            asked = [
                ("chat/completions", {"messages": long}),
                ("chat/completions", {"messages": many}),
                ("completions", {"prompt": [7] * 400_000}),
                ("embeddings", {"input": [[7] * 100] * 2_000}),
            ]
            async with pulse() as found:
                for path, fields in asked:
                    limit = {} if path == "embeddings" else {"max_tokens": 4}
                    body = json.dumps({"model": "chat"} | limit | fields).encode()
                    answer = await send(house, world.secret, body, path)
                    assert answer.status_code == 200, answer.text
                    assert backend.book[-1].bytes_received > len(body) - 64
            assert found.worst_s < LONGEST_STOP_S

    run(scenario())


def test_more_answers_than_a_hold_can_count_are_refused(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            asked = {"model": "chat", "prompt": ["a"] * 1_000, "n": 128, "max_tokens": 1}
            answer = await house.ask(world.secret, "/v1/completions", **asked)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")
            assert backend.book == []

    run(scenario())


def test_a_large_prompt_nobody_reports_on_is_counted_aside(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            backend.script = Script(tokens=2, usage="missing")
            model = {"context_window": 2_000_000}
            world = await furnish(
                house, {"base_url": backend.base_url}, charge=("1", "1"), model=model
            )
            budget = await house.make(
                "budgets", scope={"team": world.team["id"]}, amount="100", period="month"
            )
            await house.in_force()
            body = json.dumps({"model": "chat", "prompt": [7] * 200_000, "max_tokens": 4}).encode()
            answer = await send(house, world.secret, body, "completions")
            assert answer.status_code == 200, answer.text
            await house.settled()
            spent = (await house.look(f"budgets/{budget['id']}"))["spent"]
            assert spent.startswith("0.20000")  # an id is a token

    run(scenario())
