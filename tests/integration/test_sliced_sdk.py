"""A sliced stream cut by its budget, as the official OpenAI SDK's users meet it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.booked import ledger_rows
from tests.scripted_answers import Script
from tests.slicing import HELLO, Sliced, sliced_house


def sdk(sliced: Sliced) -> openai.AsyncOpenAI:
    url = f"{sliced.house.url}/v1"
    return openai.AsyncOpenAI(base_url=url, api_key=sliced.world.secret, max_retries=2)


def test_the_sdk_sees_a_stream_end_with_length_usage_and_the_reason(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    async def story(sliced: Sliced) -> None:
        await sliced.budget(300)
        sliced.backend.script = Script(tokens=5000, chunk_delay_ms=2)
        ask: dict[str, Any] = {"model": "chat", "messages": HELLO, "max_tokens": 4000}

        async with sdk(sliced) as client:
            raw = await client.chat.completions.with_raw_response.create(
                **ask, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in raw.parse()]
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(**ask)

        words = sum(bool(one.choices and one.choices[0].delta.content) for one in chunks)
        *_, last, usage = chunks
        assert last.choices[0].finish_reason == "length"
        assert last.model_extra["meterhouse"]["code"] == "insufficient_quota"
        assert "cut after 300 output tokens" in last.model_extra["meterhouse"]["message"]
        assert (usage.choices, usage.usage.completion_tokens, words) == ([], 300, 300)
        (row,) = await ledger_rows(sliced.house)
        assert row.request_id == raw.headers["x-request-id"]
        assert (row.output_tokens, row.end_by) == (300, "limit")
        assert await sliced.left() == (300, 0)
        assert caught.value.code == "insufficient_quota"
        (entry,) = sliced.backend.book  # the refusal was not repeated, nor sent anywhere
        assert entry.client_disconnected
        figure(
            f"the OpenAI SDK on a budget of 300 tokens: {words} words, finish_reason length, usage"
            f" {usage.usage.completion_tokens}; overshoot {words - 300} billed,"
            f" {entry.generated_tokens - words} generated beyond it at 500 tokens/s"
        )

    sliced_house(tmp_path, store_url, story)
