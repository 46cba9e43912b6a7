"""What the ledger of a house has: everything journaled so far is drained into it first."""

import asyncio
from typing import Any

from sqlalchemy import select

from gateway.jobs import drain_journal
from gateway.stores.sql.engine import open_engine, reading
from gateway.stores.sql.tables import usage_rows
from gateway.wiring.jobs import open_jobs
from tests.house import House


async def ledger_rows(house: House) -> list[Any]:
    """Every usage row, in the order of admission."""
    await house.settled()
    async with open_jobs(house.settings, "test") as deps:
        stopping = asyncio.Event()
        stopping.set()
        await drain_journal.drain(deps, "s00", stopping)

    def read() -> list[Any]:
        engine = open_engine(house.settings.database_url)
        try:
            with reading(engine) as connection:
                rows = select(usage_rows).order_by(usage_rows.c.admitted_at_us)
                return list(connection.execute(rows))
        finally:
            engine.dispose()

    return await asyncio.to_thread(read)
