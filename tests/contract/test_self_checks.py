"""The nightly self-check: made once a night by whoever comes first, kept, shown, and told."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Engine, text

from gateway import clock
from gateway.admin import status
from gateway.jobs import check_books
from gateway.jobs.deps import JobDeps
from gateway.stores.sql import alerts, self_checks
from gateway.stores.sql.engine import reading, transaction
from tests.invoicing import hundred
from tests.ledger_events import a_ledger
from tests.running import run
from tests.tampering import behind_the_triggers


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        hundred(engine)
        yield engine


HEADS = [["invoices", "1"], ["start", "1"], ["usage/s00", "2"]]


def deps_of(engine: Engine) -> JobDeps:
    nothing = cast(Any, None)
    return JobDeps(engine, nothing, nothing, Path(), "jobs-1")


def checked(engine: Engine, *, stopping: bool = False) -> JobDeps:
    """A look of the job, as of now."""
    deps, stop = deps_of(engine), asyncio.Event()
    if stopping:
        stop.set()
    run(check_books.run(deps, stop))
    return deps


def shown(engine: Engine) -> Any:
    return run(status.read(engine, None)).ledger


def test_books_that_agree_are_said_to_with_the_heads_to_be_kept(engine: Engine) -> None:
    assert shown(engine) is None

    deps = checked(engine)

    ledger = shown(engine)
    assert (ledger.ok, ledger.usage_rows, ledger.invoices, ledger.entries) == (True, 2, 1, 3)
    assert [head.split(":")[:2] for head in ledger.heads] == HEADS
    assert (deps.checked.faults, deps.checked.at_us > 0) == (0, True)


def test_what_does_not_agree_is_named_and_every_tenant_is_told_once(engine: Engine) -> None:
    behind_the_triggers(engine, "UPDATE usage_rows SET output_tokens = 6 WHERE output_tokens = 5")

    deps = checked(engine)
    deps = checked(engine)

    ledger = shown(engine)
    assert not ledger.ok
    assert "usage row req_2:1: its money is not what its tokens come to on its cards" in (
        ledger.faults
    )
    assert deps.checked.faults == len(ledger.faults) > 1
    with reading(engine) as connection:
        told = alerts.RECORDS.all(connection)
    assert sorted(each.tenant_id for each in told) == ["tenant_acme", "tenant_bharat"]
    assert {each.rule for each in told} == {"ledger"}


def test_a_check_is_made_once_a_night_and_again_where_its_process_died(engine: Engine) -> None:
    now_us, hour_us = clock.now_us(), 3_600_000_000

    def claims(at_us: int) -> bool:
        with transaction(engine) as connection:
            return self_checks.claim(connection, "2026-11-22", at_us, at_us - hour_us)

    assert [claims(now_us), claims(now_us + 1), claims(now_us + hour_us)] == [True, False, False]
    assert claims(now_us + hour_us + 1)


def test_a_process_that_stops_leaves_the_check_to_the_next_one(engine: Engine) -> None:
    checked(engine, stopping=True)
    with reading(engine) as connection:
        half_done = connection.scalar(
            text("SELECT count(*) FROM self_checks WHERE ended_at_us IS NULL")
        )
    assert half_done == 0

    assert checked(engine).checked.at_us > 0
