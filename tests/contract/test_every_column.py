"""Whoever changes any column of what is booked, billed or sealed is refused by the database or,
where he switched its triggers off, found by the self-check.
"""

from collections.abc import Iterator
from typing import Final

import pytest
from sqlalchemy import Boolean, Column, Engine, LargeBinary, Table, Text, select
from sqlalchemy.exc import DBAPIError

from billing.meters import Meters
from gateway.stores.sql import compaction
from gateway.stores.sql.engine import reading
from gateway.stores.sql.invoice_tables import (
    invoice_lines,
    invoice_series,
    invoice_usage,
    invoices,
)
from gateway.stores.sql.journal_tables import journal_blocks, journal_chains, journal_start
from gateway.stores.sql.tables import (
    postings,
    rate_cards,
    rollup_deltas,
    rollups,
    usage_rows,
)
from tests.invoicing import BHARAT, book, credited, drafted, hundred, issued, october
from tests.ledger_events import a_ledger, an_event
from tests.tampering import faults_after

TABLES: Final[tuple[Table, ...]] = (
    usage_rows, rollups, rollup_deltas, postings, rate_cards, invoices, invoice_lines,
    invoice_usage, invoice_series, journal_blocks, journal_chains, journal_start,
)  # fmt: skip
# What says nothing of money: an ETag, a number that orders, the one row of a table of one.
_NOTHING: Final = {("invoices", "version"), ("rollup_deltas", "id"), ("journal_start", "id")}
_LARGEST: Final = {"rollups": "charge_picos", "invoice_lines": "amount_picos"}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        book(engine, october("req_lost", winner=False), an_event("req_costly"))
        book(engine, october("req_labs", tenant_id=BHARAT, team_path=("team_labs",)))
        credited(engine, hundred(engine), 60_00)
        compaction.compact(engine)
        book(engine, october("req_late", usage=Meters(input=5)))
        issued(engine, drafted(engine, "2026-11"), early=True)
        yield engine


@pytest.mark.long
def test_whatever_is_changed_by_hand_is_found(engine: Engine) -> None:
    unnoticed = [
        f"{table.name}.{column.name}"
        for table in TABLES
        for column in table.columns
        if (table.name, column.name) not in _NOTHING
        and not is_noticed(engine, changed(engine, column))
    ]
    gone = [
        table.name
        for table in TABLES
        if not is_noticed(engine, f"DELETE FROM {table.name} WHERE {of_one_row(engine, table)}")
    ]

    assert (unnoticed, gone) == ([], [])


def is_noticed(engine: Engine, statement: str) -> bool:
    try:
        return faults_after(engine, statement) != ()
    except DBAPIError:
        return True  # a constraint refuses it whoever writes


def changed(engine: Engine, column: Column[object]) -> str:
    kind, name = column.type, column.name
    if isinstance(kind, Boolean):
        value = f"NOT coalesce({name}, false)"
    elif isinstance(kind, LargeBinary):
        value = "X'00'" if engine.dialect.name == "sqlite" else r"'\x00'::bytea"
    elif isinstance(kind, Text):
        value = f"coalesce({name}, '') || 'x'"
    else:
        value = f"coalesce({name}, 0) + 1"
    table = column.table
    return f"UPDATE {table.name} SET {name} = {value} WHERE {of_one_row(engine, table)}"


def of_one_row(engine: Engine, table: Table) -> str:
    """The one with the largest amount, where the table has some."""
    keys = list(table.primary_key.columns)
    amount = table.c.get(_LARGEST.get(table.name, ""))
    query = select(*keys).order_by(keys[0] if amount is None else amount.desc()).limit(1)
    with reading(engine) as connection:
        row = connection.execute(query).one()
    return " AND ".join(
        f"{key.name} = {literal(value)}" for key, value in zip(keys, row, strict=True)
    )


def literal(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)
