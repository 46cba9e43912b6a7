"""Where a backend's figures are missing or cannot be true, the whole prompt is billed."""

import random
from pathlib import Path
from typing import Any

import pytest

from tests.booked import ledger_rows
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

BIG = "lorem ipsum dolor sit amet " * 1500
BIG_TOKENS = 1500 * 5
USER = {"role": "user", "content": "x"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": BIG}}

# What is asked, and the least that its prompt is: tokens.
PROMPTS: dict[str, tuple[dict[str, Any], int]] = {
    "tool_calls": (
        {
            "messages": [
                USER,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c", "content": "ok"},
            ]
        },
        BIG_TOKENS,
    ),
    "functions": (
        {"messages": [USER], "functions": [{"name": "f", "description": BIG, "parameters": {}}]},
        BIG_TOKENS,
    ),
    "a refusal": (
        {"messages": [USER | {"content": [{"type": "refusal", "refusal": BIG}]}]},
        BIG_TOKENS,
    ),
    "images": ({"messages": [USER | {"content": [IMAGE] * 8}]}, 8 * 2048),
}
MOST_ABOVE = 1.2  # of the least


async def billed(
    house: House, world: World, backend: ScriptedBackend, body: dict[str, Any], *, hangs_up: bool
) -> Any:
    """The ledger's row of a request that nobody reports on."""
    asked = {"model": "chat", "max_tokens": 30} | body
    if not hangs_up:
        backend.script = Script(tokens=20, usage="missing")
        answer = await house.ask(world.secret, **asked)
        assert answer.status_code == 200, answer.text
    else:
        backend.script = Script(tokens=20, stall_after_chunks=18)
        headers, chunks = {"authorization": f"Bearer {world.secret}"}, 0
        body = asked | {"stream": True}
        url = "/v1/chat/completions"
        async with house.client.stream("POST", url, json=body, headers=headers) as stream:
            async for line in stream.aiter_lines():
                chunks += line.startswith("data:")
                if chunks == 18:
                    break
    return (await ledger_rows(house))[-1]


@pytest.mark.parametrize("hangs_up", [False, True])
def test_a_prompt_is_billed_whatever_carries_it(
    tmp_path: Path, store_url: str, hangs_up: bool
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            window = {"context_window": 131_072, "capabilities": ["chat", "tools", "vision"]}
            world = await furnish(house, {"base_url": backend.base_url}, model=window)
            for name, (body, least) in PROMPTS.items():
                row = await billed(house, world, backend, body, hangs_up=hangs_up)
                assert least <= row.input_tokens <= least * MOST_ABOVE, name
                exact = "estimated" if name == "images" else "counted"
                assert row.provenance == exact, name

    run(scenario(), 60)


@pytest.mark.parametrize("hangs_up", [False, True])
def test_a_long_prompt_of_another_script_is_billed_at_what_its_script_needs(
    tmp_path: Path, store_url: str, hangs_up: bool
) -> None:
    async def scenario() -> None:
        dice = random.Random(1)
        text = "".join(chr(dice.randint(0x4E00, 0x9FA5)) for _ in range(270_000))
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(
                house, {"base_url": backend.base_url}, model={"context_window": 2_000_000}
            )
            body = {"messages": [USER | {"content": text}]}
            row = await billed(house, world, backend, body, hangs_up=hangs_up)
            assert len(text) <= row.input_tokens <= len(text.encode())
            assert row.provenance == "estimated"

    run(scenario(), 60)


def test_a_sliced_answer_that_its_budget_cut_bills_its_whole_prompt(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            window = {"context_window": 131_072, "capabilities": ["chat", "tools"]}
            world = await furnish(
                house, {"base_url": backend.base_url}, charge=("1", "1"), model=window
            )
            await house.policy(
                name="sliced",
                scope={"tenant": world.tenant["id"]},
                budget={"hold": "sliced", "slice": 32, "least_output": 1},
            )
            await house.make(
                "budgets", scope={"key": world.key["id"]}, amount="0.0435", period="month"
            )
            await house.in_force()
            backend.script = Script(tokens=4000, chunk_delay_ms=1)
            body, least = PROMPTS["tool_calls"]
            answer = await house.ask(
                world.secret, model="chat", max_tokens=4000, stream=True, **body
            )
            assert "insufficient_quota" in answer.text
            row = (await ledger_rows(house))[-1]
            assert row.input_tokens >= least
            assert row.provenance == "counted"

    run(scenario(), 60)


def test_a_report_that_cannot_be_true_does_not_make_an_image_cheaper(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            vision = {"context_window": 131_072, "capabilities": ["chat", "vision"]}
            world = await furnish(house, {"base_url": backend.base_url}, model=vision)
            for reported, least in ((1000, 1000), (3000, 3000), (6000, 2048), (16_384, 2048)):
                backend.script = Script(body=_answer(reported))
                answer = await house.ask(
                    world.secret,
                    model="chat",
                    max_tokens=60,
                    messages=[USER | {"content": [IMAGE]}],
                )
                assert answer.status_code == 200, answer.text
                row = (await ledger_rows(house))[-1]
                assert least <= row.input_tokens <= least + 100

    run(scenario(), 60)


def test_images_at_their_most_do_not_make_an_honest_report_unlikely(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            vision = {"context_window": 131_072, "capabilities": ["chat", "vision"]}
            world = await furnish(house, {"base_url": backend.base_url}, model=vision)
            messages = [USER | {"content": [IMAGE]}]
            answer = await house.ask(
                world.secret, model="chat", max_tokens=60, n=2, messages=messages
            )
            assert answer.status_code == 200, answer.text
            row = (await ledger_rows(house))[-1]
            assert (row.input_tokens, row.provenance) == (85 + 4, "reported")

    run(scenario(), 60)


@pytest.mark.parametrize(
    ("came", "billed_tokens"), [(48, 48), (60, 50), (90, 90)], ids=["fits", "differs", "overruns"]
)
def test_an_answer_is_an_overrun_only_where_tokenisers_cannot_differ_so_much(
    tmp_path: Path, store_url: str, came: int, billed_tokens: int
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            word = " the of and to in is"  # six tokens of ours, one of the backend's
            backend.script = Script(tokens=came // 6, word=word, usage="missing")
            for stream in (False, True):
                await house.ask(
                    world.secret, model="chat", max_tokens=50, messages=[USER], stream=stream
                )
                row = (await ledger_rows(house))[-1]
                assert (row.output_tokens, row.provenance) == (billed_tokens, "counted")

    run(scenario(), 60)


def _answer(prompt_tokens: int) -> str:
    return (
        '{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
        '"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":'
        f'{{"prompt_tokens":{prompt_tokens},"completion_tokens":5,"total_tokens":0}}}}'
    )
