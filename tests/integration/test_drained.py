"""Clients that hang up on a backend that bills what it generates, whoever listens: it is heard to
its end, within a time, and what it reports is billed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

HELLO = [{"role": "user", "content": "hello there"}]


class Scene:
    def __init__(self, house: House, world: World, backend: ScriptedBackend) -> None:
        self.house, self.world, self.backend = house, world, backend

    async def leaves(self, **more: Any) -> None:
        """A client that hangs up once the backend is at work."""
        body = {"model": "chat", "messages": HELLO} | more
        headers = {"authorization": f"Bearer {self.world.secret}"}
        ask = self.house.client.post("/v1/chat/completions", json=body, headers=headers)
        asking = asyncio.create_task(ask)
        while not self.backend.book:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)  # old enough for its hang-up to be watched for
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError, httpx.HTTPError):
            await asking

    async def spent(self) -> tuple[str, str]:
        await self.house.settled()
        (budget,) = (await self.house.look("budgets"))["items"]
        return budget["spent"], budget["held"]


@contextlib.asynccontextmanager
async def scene(home: Path, store_url: str, **settings: str) -> AsyncIterator[Scene]:
    async with ScriptedBackend() as backend, open_house(home, store_url, **settings) as house:
        fields = {"base_url": backend.base_url, "on_disconnect": "drain"}
        world = await furnish(house, fields, charge=("0", "1000"))
        scope = {"tenant": world.tenant["id"]}
        await house.make("budgets", scope=scope, amount="100", period="month")
        await house.in_force()
        yield Scene(house, world, backend)


@pytest.mark.parametrize("stream", [True, False])
def test_a_backend_that_is_to_be_drained_is_heard_to_its_end_and_billed_what_it_reports(
    tmp_path: Path, store_url: str, stream: bool
) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            it.backend.script = Script(tokens=60, chunk_delay_ms=10, delay_ms=500)
            await it.leaves(stream=stream)
            assert await it.spent() == ("0.06", "0")
            assert it.backend.book[0].finished
            assert not it.backend.book[0].client_disconnected

    run(scenario())


def test_a_backend_that_goes_on_for_too_long_is_let_go(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url, DISCONNECT_DRAIN_SECONDS="1") as it:
            it.backend.script = Script(tokens=4_000, chunk_delay_ms=10)
            await it.leaves(stream=True, max_tokens=4_000)
            spent, held = await it.spent()
            assert held == "0"
            assert 0.01 < float(spent) <= it.backend.book[0].generated_tokens / 1_000
            while not it.backend.book[0].client_disconnected:
                await asyncio.sleep(0.01)
            assert it.house.data.plane._drained == 0

    run(scenario())


def test_who_has_left_is_not_tried_elsewhere(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with scene(tmp_path, store_url) as it:
            it.backend.script = Script(status=503, delay_ms=500)
            await it.leaves()
            assert await it.spent() == ("0", "0")
            assert len(it.backend.book) == 1

    run(scenario())
