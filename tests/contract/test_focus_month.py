"""Every kind of row that we export, of invoices as they are issued, breaks no rule of FOCUS."""

from collections.abc import Iterator
from typing import get_args

import pytest
from sqlalchemy import Engine

from billing.invoices import LineKind
from tests.focus_month import every_kind_of_row
from tests.focus_rules import faults
from tests.ledger_events import a_ledger


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    with a_ledger(sqlite_url) as engine:
        yield engine


@pytest.mark.parametrize("currency", [None, "EUR"])
def test_every_kind_of_row_breaks_no_rule(engine: Engine, currency: str | None) -> None:
    exported = every_kind_of_row(engine, currency)

    assert {line.line_kind for line in exported.lines} == set(get_args(LineKind))
    assert faults(exported.file, exported.totals) == []
