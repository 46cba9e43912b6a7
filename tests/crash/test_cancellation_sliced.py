"""A sliced answer may be cancelled at any await, its extensions included: no hold is lost by it."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.stores.redis import keys
from tests.booked import ledger_rows
from tests.crash.stepping import Stepped
from tests.scripted_answers import Script
from tests.slicing import CHAT, HELLO, SLICE, Sliced, sliced_house

TAG = "s00"
BUDGET = 3 * SLICE + 5  # the first request is cut; those after it find less and less


async def once(sliced: Sliced, at: int, *, stream: bool) -> bool:
    """Whether the request came to its end before it was to be cancelled."""
    packed = json.dumps(
        {"model": "chat", "messages": HELLO, "max_tokens": 900, "stream": stream}
    ).encode()
    scope: Any = {"headers": [(b"authorization", b"Bearer " + sliced.world.secret.encode())]}
    pieces = [packed]

    async def receive() -> Any:
        await asyncio.sleep(0)
        if not pieces:
            await asyncio.Event().wait()  # a client that stays
        return {"type": "http.request", "body": pieces.pop(), "more_body": False}

    async def send(_message: Any) -> None:
        await asyncio.sleep(0)

    plane = sliced.house.data.plane
    stepped = Stepped(plane.serve("chat", CHAT, scope, receive, send), at)
    try:
        await stepped
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
    await at_rest(sliced, at)
    return stepped.awaits < at


async def at_rest(sliced: Sliced, at: int) -> None:
    data = sliced.house.data
    try:
        async with asyncio.timeout(60):
            while (
                data.plane.in_flight
                or data.plane.holds.busy
                or await data.channels.house.ask("ZCARD", keys.holds(TAG))
                or any(connection.heard for connection in sliced.backend.connections)
            ):
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"cancelled at await {at}: something is held for ever") from None


@pytest.mark.parametrize(
    ("stream", "word"), [(True, " the"), (False, " the"), (True, " the of and to in is that")]
)
def test_a_sliced_answer_cancelled_at_any_await_leaves_no_hold_and_one_row(
    tmp_path: Path, store_url: str, figure: Callable[[str], None], stream: bool, word: str
) -> None:
    async def story(sliced: Sliced) -> None:
        sliced.backend.script = Script(tokens=BUDGET * 2, chunk_delay_ms=1, word=word)
        at, spent, tokens = 0, 0, len(word.split())
        whole = False
        while not whole:
            # All of the beginning; then most are chunks like any other.
            at += 7 if at > 40 and tokens == 1 else 1
            await sliced.newcomer(BUDGET)
            whole = await once(sliced, at, stream=stream)
            used, held = await sliced.left()
            assert (held, used <= BUDGET) == (0, True), f"cancelled at await {at}"
            spent += used
        rows = await ledger_rows(sliced.house)
        charged = sum(row.charge_picos for row in rows) // 10**9
        assert charged == spent
        told = {row.request_id: row.provenance for row in rows}
        done = {entry.request_id for entry in sliced.backend.book}
        assert len(told) == len(rows)
        assert done <= told.keys()
        assert {told[one] for one in told.keys() - done} <= {"estimated"}
        assert used == BUDGET // tokens * tokens  # what crosses the line goes to nobody
        figure(f"{'streamed' if stream else 'plain'}: cancelled at awaits up to {at}")

    sliced_house(tmp_path, store_url, story)
