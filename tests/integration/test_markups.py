"""Where nobody set a charge, it is what the backend costs times the model's markup: asked, booked,
earned and invoiced.
"""

from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.booked import ledger_rows
from tests.house import furnish, open_house
from tests.running import run
from tests.scripted_answers import Script
from tests.scripted_backend import ScriptedBackend


def test_a_charge_that_nobody_set_is_the_cost_and_a_quarter(
    tmp_path: Path, store_url: str, database_url: str
) -> None:
    """2.00 and 8.00 a million cost; 2.50 and 10.00 are charged, and a fifth of it is earned."""

    async def story() -> tuple[Any, dict[str, Any]]:
        opened = open_house(tmp_path, store_url, DATABASE_URL=database_url)
        async with ScriptedBackend() as backend, opened as house:
            backend.script = Script(tokens=100)
            world = await furnish(house, {"base_url": backend.base_url})
            backend_id = world.backends[0]["id"]
            target = {"backend_id": backend_id, "upstream_model": "m", "weight": 1}
            await house.make(
                "models", name="marked", markup="1.25", capabilities=["chat"],
                context_window=8192, max_output_tokens=4096, targets=[target],
            )  # fmt: skip
            cost = {"book": "cost", "backend_id": backend_id, "upstream_model": "m"}
            for meter, amount in (("input", "2.00"), ("output", "8.00")):
                await house.make(
                    "prices", **cost, meter=meter, amount_per_million=amount, currency="USD"
                )
            await house.in_force()
            hello = [{"role": "user", "content": "hello"}]
            answer = await house.ask(world.secret, model="marked", messages=hello)
            assert answer.status_code == 200
            (row,) = await ledger_rows(house)
            month = {"from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}
            (earned,) = (await house.look("reports/margin", group_by="model", **month))["items"]
            return row, earned

    row, earned = run(story())

    assert row.output_tokens == 100
    assert row.cost_picos == 2_000_000 * row.input_tokens + 8_000_000 * 100
    assert row.charge_picos == 2_500_000 * row.input_tokens + 10_000_000 * 100
    assert Decimal(earned["charge"]) == Decimal(row.charge_picos).scaleb(-12)
    assert Decimal(earned["margin"]) * 5 == Decimal(earned["charge"])
    assert (earned["model"], earned["margin_percent"]) == ("marked", "20")
