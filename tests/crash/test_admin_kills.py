"""An admin process that is killed around its commit has made a change whole, or not at all."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import servers
from tests.crash.house import CrashHouse, crash_house
from tests.crash.processes import listener
from tests.running import run

INVOICE = "2026-11"
CONFIGURED_WITHIN_S = 1.5


@pytest.fixture
def home() -> Iterator[Path]:
    with servers.short_directory("mh-admin-") as path:
        yield path


@pytest.mark.long
@pytest.mark.parametrize(("point", "made"), [("sql.commits", False), ("sql.committed", True)])
def test_a_change_is_there_or_it_is_not(
    home: Path, store_url: str, database_url: str, point: str, made: bool
) -> None:
    async def scenario() -> None:
        async with crash_house(home / "h", store_url, database_url) as house:
            worker = await house.start_worker()
            with listener() as listening:
                for path, body in (
                    (f"/keys/{house.key_id}/rotate", {"overlap_seconds": 600}),
                    ("/invoices", {"tenant_id": house.tenant_id, "period": INVOICE}),
                ):
                    before = await _state(house)
                    armed = await house.start_admin(listening, f"{point}=kill@1")
                    with pytest.raises(httpx.TransportError):
                        await _ask(house, listening.getsockname()[1], path, body)
                    assert await armed.passed(point)
                    await armed.ended()

                    after = await _state(house)
                    changed = [was != now for was, now in zip(before, after, strict=True)]
                    invoiced = path == "/invoices"
                    assert changed == [made and not invoiced, made and invoiced, made], (
                        "the change and its row of the audit chain, or neither"
                    )
                    assert (await house.ask("plain")).whole, "the secret that is known works"
                    again = await house.start_admin(listening)
                    answer = await _ask(house, listening.getsockname()[1], path, body)
                    assert answer.status_code in {200, 201}, answer.text
                    await again.stop()
                    if secret := answer.json().get("secret"):
                        house.client.headers["authorization"] = f"Bearer {secret}"
                        await asyncio.sleep(CONFIGURED_WITHIN_S)
            assert (await house.ask("plain")).whole, "and so does the one that came in its place"
            assert len((await house.admin.get("/invoices")).json()["items"]) == 1
            await worker.stop()

    run(scenario())


async def _ask(house: CrashHouse, port: int, path: str, body: dict[str, object]) -> httpx.Response:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}/admin/v1", headers=dict(house.admin.headers), timeout=30
    ) as client:
        return await client.post(path, json=body)


async def _state(house: CrashHouse) -> tuple[str, int, int]:
    """The key's version, how many invoices there are, and where the audit chain ends."""
    key, invoices, head = await asyncio.gather(
        house.admin.get(f"/keys/{house.key_id}"),
        house.admin.get("/invoices"),
        house.admin.get("/audit/head"),
    )
    return key.headers["etag"], len(invoices.json()["items"]), head.json()["seq"]
