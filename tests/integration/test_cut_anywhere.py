"""A stream that is cut, at whatever byte, never looks whole, and is billed once."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.booked import ledger_rows
from tests.house import furnish, open_house
from tests.misbehaving import ENDED_AT, WIRE, cut_at
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]


def test_a_stream_cut_at_any_byte_tells_its_client_and_has_one_row(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            await house.make(
                "budgets", scope={"team": world.team["id"]}, amount="100", period="month"
            )
            await house.in_force()

            async def ask(script: Script) -> str:
                backend.script = script
                async with asyncio.timeout(60):
                    body = {"model": "chat", "messages": HELLO, "max_tokens": 50, "stream": True}
                    answer = await house.ask(world.secret, **body)
                return f"{answer.status_code} {answer.text}"

            honest = 0
            for offset in range(len(WIRE) + 1):
                told = await ask(cut_at(offset))
                looks_whole = told.endswith("data: [DONE]\n\n")
                assert looks_whole is (offset >= ENDED_AT), (offset, told)
                assert looks_whole or "upstream_error" in told, (offset, told)
                for _ in range(2):  # the breaker leaves a backend alone that only fails
                    assert (await ask(Script(tokens=1))).endswith("data: [DONE]\n\n")
                    honest += 1

            rows = await ledger_rows(house)
            assert Counter(row.request_id for row in rows) == Counter(
                entry.request_id for entry in backend.book
            )
            assert len(rows) == len(WIRE) + 1 + honest
            (budget,) = (await house.look("budgets"))["items"]
            assert budget["held"] == "0"
            figure(f"cut at each of {len(WIRE)} bytes: {len(rows)} rows, nothing held")

    run(scenario(), 300)
