"""The job lets decisions go by METERHOUSE_DECISION_DAYS, and by nothing else."""

import asyncio
from pathlib import Path
from typing import Any, cast

from gateway import clock
from gateway.jobs import retire_decisions
from gateway.jobs.deps import JobDeps
from gateway.stores.sql import decisions, usage
from gateway.stores.sql.decision_tables import decision_blocks
from gateway.stores.sql.engine import transaction
from tests.contract.test_ledger_decisions import decided
from tests.ledger_events import a_ledger
from tests.running import run

DAY_US = 86_400_000_000


def retired_by(database_url: str, days: int, age_days: int) -> int:
    """How many of five decisions went, that were sealed so long ago."""
    with a_ledger(database_url) as engine:
        for n in range(5):
            usage.record(engine, [(decided(f"req_{n}"), True)])
        with transaction(engine) as connection:
            then = clock.now_us() - age_days * DAY_US
            connection.execute(decision_blocks.update().values(sealed_at_us=then))
        nothing = cast(Any, None)
        deps = JobDeps(engine, nothing, nothing, Path(), "jobs-1", decision_days=days)

        run(retire_decisions.run(deps, asyncio.Event()))

        return decisions.verify(engine).retired


def test_what_is_older_than_the_setting_goes(database_url: str) -> None:
    assert retired_by(database_url, days=30, age_days=31) == 5


def test_what_is_younger_stays(database_url: str) -> None:
    assert retired_by(database_url, days=30, age_days=29) == 0


def test_with_zero_days_nothing_ever_goes(database_url: str) -> None:
    assert retired_by(database_url, days=0, age_days=10_000) == 0
