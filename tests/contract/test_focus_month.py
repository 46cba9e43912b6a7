"""Every kind of row that we export, of invoices as they are issued, breaks no rule of FOCUS."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from typing import get_args

import pytest
from sqlalchemy import Engine

from billing.invoices import LineKind
from billing.money import parse_picos
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


def test_what_was_bought_in_advance_is_what_was_used_of_it_and_what_expired(engine: Engine) -> None:
    """As FOCUS asks of every commitment, over all its invoices (EffectiveCost-C-012)."""
    rows = list(csv.DictReader(io.StringIO(every_kind_of_row(engine).file.decode(), newline="")))
    bought, spent = Counter[str](), Counter[str]()
    for row in rows:
        if row["ChargeCategory"] == "Purchase":
            bought[row["CommitmentDiscountId"]] += parse_picos(row["BilledCost"])
        else:
            spent[row["CommitmentDiscountId"]] += parse_picos(row["EffectiveCost"])

    prepaid = [f"cmt_1/{month}-01" for month in ("2026-06", "2026-07", "2026-08")]
    assert {each: spent[each] for each in prepaid} == dict.fromkeys(prepaid, parse_picos("99"))
    assert {each: bought[each] for each in prepaid} == dict.fromkeys(prepaid, parse_picos("99"))
