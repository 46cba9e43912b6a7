"""Whatever a backend does, its client learns the truth, the ledger has one row of what was done, no
hold is left behind, and whoever asks next is answered as if nothing had been.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx

from tests.booked import ledger_rows
from tests.house import House, World, furnish, open_house
from tests.misbehaving import PLAIN, STREAMED
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

# What the client gets, whose figures are booked, whether it is charged, for how many output tokens.
FAILED: Final = ("upstream_error", "estimated", False, 0)
REFUSED: Final = ("overloaded", "counted", False, 0)
BROKEN: Final = ("upstream_error", "counted", False, 0)
SERVED: Final = ("done", "reported", True, 3)
COUNTED: Final = ("done", "counted", True, 3)

COMES_OF: Final[dict[str, tuple[str, str, bool, int]]] = {
    "an error body under 200": FAILED,
    "not JSON": FAILED,
    "an empty body": FAILED,
    "invalid UTF-8": FAILED,
    "null bytes": FAILED,
    "a body shorter than its length": FAILED,
    "a body longer than its length": SERVED,
    "a wrong content type": SERVED,
    "gzip that nobody asked for": FAILED,
    "a redirect": BROKEN,
    "100 Continue first": SERVED,
    "HTTP/1.0, ended by its close": SERVED,
    "a reset in the middle of the head": FAILED,
    "no HTTP at all": FAILED,
    "usage below zero": COUNTED,
    "usage beyond 64 bits": COUNTED,
    "usage that is text": COUNTED,
    "usage of a million": COUNTED,
    "usage of nothing": COUNTED,
    "no usage": COUNTED,
    "a storm of 429": REFUSED,
    "a storm of 503": REFUSED,
    "500 after work": BROKEN,
    "more tokens than it was allowed": ("done", "counted", True, 90),
    "[DONE] twice": SERVED,
    "data after [DONE]": SERVED,
    "every chunk twice": SERVED,
    "invalid JSON in a chunk": ("upstream_error", "counted", True, 1),
    "invalid UTF-8 in a chunk": FAILED,
    "null bytes between events": SERVED,
    "a byte order mark": SERVED,
    "lines that end in CR LF": SERVED,
    "lines that end in CR": SERVED,
    "comments only": ("upstream_error", "estimated", True, 0),
    "an event of a megabyte": FAILED,
    "usage twice, the first of it wrong": ("done", "reported", True, 8),
    "a stream without usage": ("done", "counted", True, 8),
    "no [DONE]": ("done", "reported", True, 8),
    "an error event, then the end": ("upstream_error", "counted", True, 3),
    "cut after some chunks": ("upstream_error", "counted", True, 4),
    "chunked framing that is garbage": ("upstream_error", "counted", True, 1),
    "trailers": SERVED,
    "more tokens than allowed, streamed": ("done", "counted", True, 90),
    "a plain answer where a stream was asked for": FAILED,
}


def test_whatever_a_backend_does_it_is_booked_once_and_the_next_request_is_served(
    tmp_path: Path, store_url: str, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
            world = await furnish(house, {"base_url": backend.base_url})
            await house.make(
                "budgets", scope={"team": world.team["id"]}, amount="10", period="month"
            )
            await house.in_force()
            came: dict[str, tuple[str, str, bool, int]] = {}
            for table in (PLAIN, STREAMED):
                for name, script in table.items():
                    came[name] = await _comes_of(house, world, backend, script, table is STREAMED)
            assert came == COMES_OF
            figure(f"{len(came)} behaviours: a row each, no hold left, the next request served")

    run(scenario(), 120)


async def _comes_of(
    house: House,
    world: World,
    backend: ScriptedBackend,
    script: Script,
    streamed: bool,
) -> tuple[str, str, bool, int]:
    before = len(await ledger_rows(house))
    backend.script = script
    answer = await _ask(house, world, stream=streamed)
    bad = (await ledger_rows(house))[before:]
    (sent,) = {entry.request_id for entry in backend.book[-1:]}
    assert [row.request_id for row in bad] == [sent], "one attempt, one row"
    (budget,) = (await house.look("budgets"))["items"]
    assert budget["held"] == "0"
    backend.script = Script(tokens=2)
    if script.retry_after is not None:
        await asyncio.sleep(int(script.retry_after))  # it gets the rest it asks for
    honest = await _ask(house, world)
    assert honest.json()["usage"]["completion_tokens"] == 2
    row = bad[0]
    return _ending(answer), row.provenance, row.winner, row.output_tokens


async def _ask(house: House, world: World, **more: Any) -> httpx.Response:
    hello = [{"role": "user", "content": "hello there"}]
    body = {"model": "chat", "messages": hello, "max_tokens": 50} | more
    async with asyncio.timeout(60):
        return await house.ask(world.secret, **body)


def _ending(answer: httpx.Response) -> str:
    """`done`, or the code of the error, wherever that stands."""
    for code in ("upstream_error", "overloaded"):
        if f'"code":"{code}"' in answer.text.replace(" ", ""):
            return code
    return "done" if answer.status_code == 200 else str(answer.status_code)
