"""What is changed while a stream is open: its price, its key, the place of its team. It goes on as
it was admitted; what comes later goes by what is in force then.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import clock
from tests.booked import ledger_rows
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {
    "model": "chat",
    "messages": [{"role": "user", "content": "hello there"}],
    "max_tokens": 100,
    "stream": True,
}
Story = Callable[[House, World, ScriptedBackend], Awaitable[None]]


@pytest.fixture
def played(tmp_path: Path, store_url: str) -> Callable[[Story], None]:
    """Plays a story in a house where input is free and 10 tokens of output cost 0.001."""

    def play(story: Story) -> None:
        async def whole() -> None:
            async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
                world = await furnish(house, {"base_url": backend.base_url}, charge=("0", "100"))
                await story(house, world, backend)

        run(whole())

    return play


class Open:
    """A stream that has begun and does not end before `rest`."""

    def __init__(self, house: House, world: World, backend: ScriptedBackend) -> None:
        self._house, self._secret, self._backend = house, world.secret, backend
        self._begun = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> tuple[int, str]:
        headers = {"authorization": f"Bearer {self._secret}"}
        client, text = self._house.client, ""
        async with client.stream("POST", CHAT, json=BODY, headers=headers) as answer:
            async for piece in answer.aiter_text():
                text += piece
                self._begun.set()
        return answer.status_code, text

    async def begun(self) -> None:
        await self._begun.wait()

    async def rest(self) -> str:
        status, text = await self._task
        assert status == 200
        assert text.endswith("data: [DONE]\n\n")
        return text


async def opened(house: House, world: World, backend: ScriptedBackend) -> Open:
    """10 tokens over half a second."""
    backend.scripts = [Script(tokens=10, chunk_delay_ms=50)]
    stream = Open(house, world, backend)
    await stream.begun()
    return stream


async def ask(house: House, world: World) -> httpx.Response:
    return await house.ask(world.secret, **BODY | {"stream": False})


def test_a_price_that_changes_under_way_is_for_those_who_come_later(
    played: Callable[[Story], None],
) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        backend.script = Script(tokens=10)
        stream = await opened(house, world, backend)
        await house.make(
            "prices",
            book="charge",
            model="chat",
            meter="output",
            amount_per_million="300",
            currency="USD",
            effective_from=clock.rfc3339(time.time_ns() // 1000),
        )
        await house.in_force()
        later = await ask(house, world)
        assert later.status_code == 200
        await stream.rest()
        first, second = await ledger_rows(house)
        assert (first.charge_picos, second.charge_picos) == (10**9, 3 * 10**9)
        assert first.finished_at_us > second.finished_at_us

    played(story)


def test_a_deleted_key_ends_no_stream_and_begins_none(played: Callable[[Story], None]) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        key_id = world.key["id"]
        budget = await house.make(
            "budgets", scope={"team": world.team["id"]}, amount="1", period="month"
        )
        await house.in_force()
        stream = await opened(house, world, backend)
        gone = await house.admin.delete(f"/keys/{key_id}")
        assert gone.status_code == 204, gone.text
        await house.in_force()
        refused = await ask(house, world)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        await stream.rest()
        (row,) = await ledger_rows(house)
        assert (row.key_id, row.charge_picos) == (key_id, 10**9)
        after = await house.look(f"budgets/{budget['id']}")
        assert (after["spent"], after["held"]) == ("0.001", "0")

    played(story)


def test_a_team_that_moves_leaves_its_open_holds_where_they_are(
    played: Callable[[Story], None],
) -> None:
    async def story(house: House, world: World, backend: ScriptedBackend) -> None:
        backend.script = Script(tokens=10)
        target = await house.make("teams", tenant_id=world.tenant["id"], name="research")
        scopes = {
            "old": {"team": world.team["id"]},
            "new": {"team": target["id"]},
            "own": {"team": world.squad["id"]},
        }
        budgets = {
            name: await house.make("budgets", scope=scope, amount="1", period="month")
            for name, scope in scopes.items()
        }
        await house.in_force()

        async def standing() -> dict[str, tuple[str, str]]:
            shown = {n: await house.look(f"budgets/{b['id']}") for n, b in budgets.items()}
            return {name: (one["spent"], one["held"]) for name, one in shown.items()}

        stream = await opened(house, world, backend)
        held = await standing()
        moved = await house.admin.put(
            f"/teams/{world.squad['id']}",
            json={
                "tenant_id": world.tenant["id"],
                "parent_id": target["id"],
                "name": "search",
                "cost_center": "110",
            },
        )
        assert moved.status_code == 200, moved.text
        await house.in_force()
        assert await standing() == held
        assert held == {"old": ("0", "0.01"), "new": ("0", "0"), "own": ("0", "0.01")}
        assert (await ask(house, world)).status_code == 200
        await stream.rest()
        await house.settled()
        assert await standing() == {
            "old": ("0.001", "0"),
            "new": ("0.001", "0"),
            "own": ("0.002", "0"),
        }
        first, second = await ledger_rows(house)
        assert (world.team["id"] in first.team_path, target["id"] in first.team_path) == (1, 0)
        assert (world.team["id"] in second.team_path, target["id"] in second.team_path) == (0, 1)

    played(story)
