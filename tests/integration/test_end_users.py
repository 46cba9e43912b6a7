"""Whom an app's requests are for: kept by nobody unless a tenant says so, and then as a pseudonym.
The name goes to the backend as it was sent, and nowhere else.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import redis

from tests.booked import ledger_rows
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_backend import ScriptedBackend

NAME = "ada.lovelace@example.com"
HELLO = [{"role": "user", "content": "hello there"}]
BODY: dict[str, Any] = {"model": "chat", "messages": HELLO, "max_tokens": 9, "user": NAME}


@contextlib.asynccontextmanager
async def staged(tmp_path: Path, store_url: str) -> AsyncIterator[tuple[ScriptedBackend, World]]:
    async with ScriptedBackend() as backend, open_house(tmp_path, store_url) as house:
        yield backend, await furnish(house, {"base_url": backend.base_url})


async def keeps(world: World, what: str) -> None:
    house, tenant = world.house, world.tenant
    body = {name: tenant[name] for name in ("name", "currency", "timezone")}
    answer = await house.admin.put(f"/tenants/{tenant['id']}", json=body | {"end_users": what})
    assert answer.status_code == 200, answer.text
    assert answer.json()["end_users"] == what
    await house.in_force()


def written(house: House, store_url: str) -> bytes:
    """All that the gateway has on disk and in its store."""
    found = [path.read_bytes() for path in house.settings.home.rglob("*") if path.is_file()]
    with redis.Redis.from_url(store_url) as client:
        found += [client.dump(key) or b"" for key in client.scan_iter()]
    return b"\n".join(found)


def test_without_the_setting_nothing_is_kept_and_the_backend_gets_what_was_sent(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with staged(tmp_path, store_url) as (backend, world):
            await world.house.ask(world.secret, **BODY)

            assert backend.book[0].body == BODY | {"model": "m"}
            (row,) = await ledger_rows(world.house)
            assert row.end_user is None
            assert NAME.encode() not in await asyncio.to_thread(written, world.house, store_url)

    run(scenario())


def test_with_it_a_pseudonym_is_and_the_name_is_nowhere(tmp_path: Path, store_url: str) -> None:
    async def scenario() -> None:
        async with staged(tmp_path, store_url) as (backend, world):
            await keeps(world, "pseudonym")
            others = {name: value for name, value in BODY.items() if name != "user"}
            asked = [BODY, others | {"metadata": {"user_id": NAME}}, others | {"user": "bob"}]
            for body in (*asked, others):
                assert (await world.house.ask(world.secret, **body)).status_code == 200

            assert [each.body for each in backend.book] == [
                body | {"model": "m"} for body in (*asked, others)
            ]
            ada, again, bob, nobody = [row.end_user for row in await ledger_rows(world.house)]
            assert ada == again
            assert len({ada, bob, nobody}) == 3
            assert nobody is None
            assert NAME.encode() not in await asyncio.to_thread(written, world.house, store_url)

            await keeps(world, "off")
            await world.house.ask(world.secret, **BODY)
            assert (await ledger_rows(world.house))[-1].end_user is None

    run(scenario())
