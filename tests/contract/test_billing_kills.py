"""Case 3 of the acceptance cases: whoever books or issues is killed around its commit, and does it
again. It was done once.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, func, select

from gateway.stores.sql import alerts, books, compaction, invoices, self_checks
from gateway.stores.sql.engine import reading
from gateway.stores.sql.rollups import rolled
from gateway.stores.sql.tables import usage_rows
from tests.billing_steps import main
from tests.invoicing import book, drafted, issued, lines_of, october
from tests.ledger_events import a_ledger
from tests.tampering import behind_the_triggers, by_hand

POINTS = ["sql.commits", "sql.committed"]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def killed_at(point: str, step: str, url: str, passage: int = 1) -> None:
    struck = {"TEST_FAILPOINTS": f"{point}=kill@{passage}", "TEST_MAY_KILL_ME": "yes"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.billing_steps", step, url],
        env=os.environ | struck,
        check=False,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("point", POINTS)
def test_case_03_a_booking_that_is_killed_and_repeated_is_counted_once(
    engine: Engine, database_url: str, point: str
) -> None:
    killed_at(point, "book", database_url)
    before = booked(engine)

    book(engine, october("req_1"), october("req_2"))

    assert before == ((0, 0) if point == "sql.commits" else (2, 2))
    assert booked(engine) == (2, 2)
    charges = [line.amount_picos for line in lines_of(engine, drafted(engine))[:-1]]
    assert sum(charges) == 2 * october("req_1").charge_picos
    with reading(engine) as connection:
        assert books.check(connection).faults == ()


@pytest.mark.parametrize("point", POINTS)
def test_a_compaction_that_is_killed_neither_loses_nor_doubles_a_delta(
    engine: Engine, database_url: str, point: str
) -> None:
    for batch in range(3):
        book(engine, *(october(f"req_{n}") for n in range(batch, batch + 2)))
    killed_at(point, "compact", database_url)

    assert compaction.pending(engine) == (3 if point == "sql.commits" else 0)
    assert booked(engine) == (4, 4)
    assert compaction.compact(engine) == (3 if point == "sql.commits" else 0)
    assert booked(engine) == (4, 4)
    with reading(engine) as connection:
        assert books.check(connection).faults == ()


@pytest.mark.parametrize("point", POINTS)
def test_case_03_an_invoice_that_is_killed_while_it_is_issued_has_one_number(
    engine: Engine, database_url: str, point: str
) -> None:
    book(engine, october("req_1"))
    draft = drafted(engine)
    killed_at(point, "issue", database_url, passage=2)  # the first is the draft's

    found = invoices.one(engine, draft.id)
    assert found is not None
    assert found.status == ("draft" if point == "sql.commits" else "issued")
    invoice = found if found.status == "issued" else issued(engine, found)

    assert invoice.number == "INV-000001"
    assert lines_of(engine, drafted(engine, "2026-11")) == []
    with reading(engine) as connection:
        assert books.check(connection).faults == ()


def test_a_check_that_is_killed_before_all_are_told_is_made_and_told_again(
    engine: Engine, database_url: str
) -> None:
    book(engine, october("req_1"))
    behind_the_triggers(engine, "UPDATE usage_rows SET output_tokens = 1")
    killed_at("sql.committed", "check", database_url, passage=2)  # the first is the claim
    by_hand(engine, "UPDATE self_checks SET began_at_us = 0")  # it is long ago

    main("check", database_url)

    with reading(engine) as connection:
        told = sorted(each.tenant_id for each in alerts.RECORDS.all(connection))
        last = self_checks.latest(connection)
    assert told == ["tenant_acme", "tenant_bharat"]
    assert last is not None


def booked(engine: Engine) -> tuple[int, int]:
    """Usage rows, and the attempts that the rollups have."""
    with reading(engine) as connection:
        rows = connection.scalar(select(func.count()).select_from(usage_rows))
        attempts = connection.scalar(select(func.sum(rolled.c.attempts)))
        return int(rows or 0), int(attempts or 0)
