"""Refused calls of the admin API are counted where everything else is."""

import asyncio
from pathlib import Path

from tests.house import open_house
from tests.running import run


def test_who_is_not_let_in_or_not_allowed_is_counted_by_reason(
    tmp_path: Path, store_url: str
) -> None:
    async def scenario() -> None:
        async with open_house(tmp_path / "h", store_url) as house:
            auditor = await house.make("admin-tokens", name="eve", role="auditor")
            bad, denied = (
                {"authorization": f"Bearer {token}"} for token in ("mha_wrong", auditor["secret"])
            )

            await house.admin.get("/tenants", headers=bad)
            await house.admin.post("/tenants", json={}, headers=denied)
            await house.admin.post("/tenants", json={}, headers=denied)

            expected = {
                'meterhouse_admin_refusals_total{meterhouse_refusal_code="forbidden"} 2',
                'meterhouse_admin_refusals_total{meterhouse_refusal_code="invalid_admin_token"} 1',
            }
            while True:
                told = house.opened.telemetry.exposition().decode()
                if all(line in told for line in expected):
                    return
                await asyncio.sleep(0.1)

    run(scenario())
