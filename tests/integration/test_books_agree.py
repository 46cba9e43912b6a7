"""A thousand mixed requests: the ledger against the backends' own books, row by row; then usage,
rollups, postings, invoice and budget counters against the ledger, to the last pico.
"""

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from gateway.jobs import drain_journal
from gateway.stores.sql.engine import open_engine, reading
from gateway.stores.sql.rollups import rolled
from gateway.stores.sql.tables import postings, usage_rows
from gateway.wiring.jobs import open_jobs
from tests.house import House, World, furnish, open_house
from tests.running import run
from tests.scripted_backend import Entry, ScriptedBackend

REQUESTS = 1_000
AT_ONCE = 40
PICOS = 10**12


def _request(draw: random.Random) -> tuple[str, dict[str, Any], bool]:
    """(path, body, whether the client hangs up in the middle)."""
    script: dict[str, Any] = {"tokens": draw.randint(1, 40)}
    stream = draw.random() < 0.5
    fate = draw.random()
    hang_up = False
    if fate < 0.04:
        script["status"] = 500
    elif fate < 0.08:
        script["status"] = 429
    elif fate < 0.12:
        script["usage"] = "missing"
    elif fate < 0.15:
        script["usage"] = "zero"
    elif fate < 0.20:
        script["cut_after_chunks"], stream = draw.randint(0, 5), True
    elif fate < 0.23:
        script["cut_at_byte"], stream = draw.randint(0, 200), False
    elif fate < 0.26:
        script["error_after_chunks"], stream = draw.randint(1, 5), True
    elif fate < 0.36:
        script |= {"tokens": 400, "chunk_delay_ms": 2}
        stream, hang_up = True, True
    elif fate < 0.40:
        return "/v1/embeddings", {"model": "chat", "input": ["some words", "more"]}, False
    text = f"tell me {'more ' * draw.randint(0, 30)} script:{json.dumps(script)}"
    body: dict[str, Any] = {
        "model": "chat",
        "messages": [{"role": "user", "content": text}],
        "stream": stream,
        "max_tokens": 500,
        "n": 2 if draw.random() < 0.1 else 1,
    }
    return "/v1/chat/completions", body, hang_up


async def _one(house: House, key: str, draw: random.Random) -> None:
    path, body, hang_up = _request(draw)
    headers = {
        "authorization": f"Bearer {key}",
        "x-meterhouse-tags": f"env={draw.choice(['prod', 'test'])}",
    }
    if not hang_up:
        await house.client.post(path, json=body, headers=headers)
        return
    async with house.client.stream("POST", path, json=body, headers=headers) as answer:
        wanted = draw.randint(1, 20)
        async for line in answer.aiter_lines():
            wanted -= line.startswith("data:")
            if not wanted:
                return


async def _drive(house: House, world: World) -> None:
    gate = asyncio.Semaphore(AT_ONCE)
    draw = random.Random(20261121)

    async def bounded(seed: int) -> None:
        async with gate:
            await _one(house, world.secret, random.Random(seed))

    await asyncio.gather(*(bounded(draw.getrandbits(32)) for _ in range(REQUESTS)))
    await house.settled()


def _check_row(row: Any, entry: Entry) -> None:
    """One attempt, in our ledger and in the backend's book."""
    input_tokens = row.input_tokens + row.cache_read_tokens
    reported = entry.reported or {}
    if row.provenance == "reported":
        assert input_tokens == reported["prompt_tokens"] == entry.prompt_tokens
        assert row.output_tokens == reported.get("completion_tokens", 0)
        assert row.output_tokens == entry.generated_tokens
    elif row.winner:
        # Our own count of what came through us: all of a whole answer, never more than was
        # generated of one that broke off.
        assert row.output_tokens <= entry.generated_tokens
        assert row.output_tokens == entry.generated_tokens or not entry.finished
    else:
        assert row.charge_picos == 0


async def _rows(house: House) -> list[Any]:
    def read() -> list[Any]:
        engine = open_engine(house.settings.database_url)
        try:
            with reading(engine) as connection:
                return list(connection.execute(select(usage_rows)))
        finally:
            engine.dispose()

    return await asyncio.to_thread(read)


async def _sums(house: House) -> tuple[int, int, int, int]:
    """Picos of charge and cost: by rollups, by postings."""

    def read() -> tuple[int, int, int, int]:
        engine = open_engine(house.settings.database_url)
        try:
            with reading(engine) as connection:
                buckets = list(connection.execute(select(rolled)))
                posted = list(connection.execute(select(postings)))
        finally:
            engine.dispose()
        assert sum(p.amount_picos for p in posted) == 0
        debit = defaultdict(int)
        for p in posted:
            debit[p.kind] += max(0, p.amount_picos)
        return (
            sum(r.charge_picos for r in buckets),
            sum(r.cost_picos for r in buckets),
            debit["charge"],
            debit["cost"],
        )

    return await asyncio.to_thread(read)


def _told(rows: list[Any]) -> str:
    """What the thousand were, and what they come to."""
    provenance = Counter(row.provenance for row in rows)
    ends = Counter(row.end_by for row in rows if row.winner)
    retried = len(rows) - len({row.request_id for row in rows})
    assert retried > 0
    assert ends["client"] > 0
    assert ends["upstream"] > 0
    money = Decimal(sum(row.charge_picos for row in rows)) / PICOS
    return (
        f"{REQUESTS} requests, {len(rows)} rows = the backends' books: {dict(provenance)},"
        f" ended by {dict(ends)}, {retried} further attempts; rows, usage, rollups, postings and"
        f" invoice: {money} USD each"
    )


def test_a_thousand_mixed_requests_are_booked_as_the_backends_booked_them(
    tmp_path: Path, store_url: str, database_url: str, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        async with (
            ScriptedBackend() as one,
            ScriptedBackend() as two,
            open_house(tmp_path, store_url, DATABASE_URL=database_url) as house,
        ):
            world = await furnish(
                house,
                {"name": "one", "base_url": one.base_url},
                {"name": "two", "base_url": two.base_url, "region": "eu-west"},
            )
            await _priced(house, world)
            await _drive(house, world)
            async with open_jobs(house.settings, "test") as deps:
                stopping = asyncio.Event()
                stopping.set()
                await drain_journal.drain(deps, "s00", stopping)

            rows = await _rows(house)
            book: dict[tuple[str, str], list[Entry]] = defaultdict(list)
            for backend, made in zip((one, two), world.backends, strict=True):
                for entry in backend.book:
                    book[entry.request_id, made["id"]].append(entry)
            for row in rows:
                _check_row(row, book[row.request_id, row.backend_id].pop())
            assert not any(book.values()), "the backends know of attempts that we do not"
            assert len(rows) >= REQUESTS * 9 // 10
            assert set(Counter(r.provenance for r in rows)) == {"reported", "counted", "estimated"}
            await _check_sums(house, world, rows)
            figure(_told(rows))

    run(scenario(), within_s=240)


async def _priced(house: House, world: World) -> None:
    for backend, amounts in zip(world.backends, (("0.1", "0.4"), ("0.1", "0.4")), strict=True):
        for meter, amount in zip(("input", "output"), amounts, strict=True):
            await house.make(
                "prices",
                book="cost",
                backend_id=backend["id"],
                upstream_model="m",
                meter=meter,
                amount_per_million=amount,
                currency="USD",
                effective_from="2026-01-01T00:00:00Z",
            )
    await house.make("budgets", scope={"key": world.key["id"]}, amount="1000", period="month")
    await house.in_force()


async def _check_sums(house: House, world: World, rows: list[Any]) -> None:
    charge = sum(row.charge_picos for row in rows)
    cost = sum(row.cost_picos for row in rows)
    assert charge > 0
    assert cost > 0
    assert await _sums(house) == (charge, cost, charge, cost)

    span = {"from": "2026-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}
    tenant = {"tenant_id": world.tenant["id"]}
    for group in ("tenant", "team,model", "key,backend,region", "day", "hour", "tag:env"):
        found = (await house.look("usage", group_by=group, **span, **tenant))["items"]
        assert sum(_picos(item["charge"]) for item in found) == charge, group
        assert sum(_picos(item["cost"]) for item in found) == cost, group
        assert sum(item["requests"] for item in found) == sum(row.winner for row in rows)

    await _check_invoice(house, world, charge)
    (budget,) = (await house.look("budgets"))["items"]
    counters = sum(row.counter_nanos for row in rows)
    assert _picos(budget["spent"]) == counters * 1000
    assert budget["held"] == "0"


async def _check_invoice(house: House, world: World, charge: int) -> None:
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    # The tenant bills in Berlin: the month is the one on the wall there.
    month = datetime.now(UTC).astimezone(ZoneInfo("Europe/Berlin")).strftime("%Y-%m")
    invoice = await house.make("invoices", tenant_id=world.tenant["id"], period=month)
    answer: httpx.Response = await house.admin.get(f"/invoices/{invoice['id']}/lines.csv")
    header, *lines = answer.text.strip().splitlines()
    columns = header.split(",")
    amount, kind = columns.index("amount"), columns.index("line_kind")
    cells = [line.split(",") for line in lines]
    usage = sum(_picos(cell[amount]) for cell in cells if cell[kind] == "usage")
    assert usage == charge
    total = sum(_picos(cell[amount]) for cell in cells)
    assert total == _picos(invoice["total"])
    assert total % (PICOS // 100) == 0


def _picos(text: str) -> int:
    value = Decimal(text) * PICOS
    assert value == value.to_integral_value()
    return int(value)
