"""The books are derived anew from the usage rows: what agrees is said to, and whatever was changed
behind the triggers' back is named.
"""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from billing.meters import Meters, Provenance
from gateway.evidence import ledger_books
from gateway.settings import Settings
from gateway.stores.sql import books, compaction
from gateway.stores.sql.engine import reading, transaction
from tests.invoicing import BHARAT, book, credited, drafted, hundred, issued, october
from tests.ledger_events import a_ledger, an_event
from tests.tampering import behind_the_triggers


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def used_and_billed(engine: Engine) -> None:
    """Everything the books know: losers, corrections, other tenants, issued, credited."""
    book(engine, october("req_guess", hold="estimated", provenance=Provenance.ESTIMATED))
    book(engine, october("req_lost", winner=False), an_event("req_costly"))
    book(engine, october("req_guess", usage=Meters(input=1)))
    book(engine, october("req_labs", tenant_id=BHARAT, team_path=("team_labs",)))
    credited(engine, hundred(engine), 60_00)
    issued(engine, drafted(engine, "2026-09"))
    compaction.compact(engine)


def faults(engine: Engine) -> tuple[str, ...]:
    with reading(engine) as connection:
        return books.check(connection).faults


def test_books_that_agree_are_said_to(engine: Engine) -> None:
    used_and_billed(engine)

    with reading(engine) as connection:
        found = books.check(connection)

    assert found.faults == ()
    assert (found.usage_rows, found.invoices) == (8, 3)


CHANGES = {
    "a rollup": (
        "UPDATE rollups SET charge_picos = charge_picos + 1 WHERE tenant_id = 'tenant_bharat'",
        "rollup of team team_labs",
    ),
    "a rollup's tokens": (
        "UPDATE rollups SET output_tokens = output_tokens - 1 WHERE tenant_id = 'tenant_bharat'",
        "rollup of team team_labs",
    ),
    "no rollup": ("DELETE FROM rollups WHERE tenant_id = 'tenant_bharat'", "team_labs"),
    "no usage row": ("DELETE FROM usage_rows WHERE request_id = 'req_labs'", "team_labs"),
    "a posting": (
        "UPDATE postings SET amount_picos = 1 WHERE account LIKE 'receivable/tenant_bharat/%'",
        "req_labs:1 do not add up",
    ),
    "a whole event": ("DELETE FROM postings WHERE event_id = 'req_labs:1'", "owes"),
    "a price": (
        "UPDATE usage_rows SET charge_picos = charge_picos + 1 WHERE request_id = 'req_labs'",
        "owes",
    ),
}


@pytest.mark.parametrize(("statement", "words"), CHANGES.values(), ids=CHANGES.keys())
def test_what_was_changed_by_hand_is_named(engine: Engine, statement: str, words: str) -> None:
    used_and_billed(engine)
    behind_the_triggers(engine, statement)

    assert any(words in fault for fault in faults(engine)), faults(engine)


ISSUED = [
    ("UPDATE invoice_lines SET team = 'Others'", "is not what was issued"),
    ("UPDATE invoices SET total_minor = total_minor + 1", "not what was issued"),
    ("DELETE FROM invoices WHERE period = '2026-09'", "has no invoice"),
    ("UPDATE invoices SET total_minor = -20000 WHERE kind = 'credit_note'", "more is credited"),
]


@pytest.mark.parametrize(("statement", "words"), ISSUED)
def test_what_was_issued_and_changed_with_the_triggers_off_is_named(
    engine: Engine, statement: str, words: str
) -> None:
    used_and_billed(engine)
    behind_the_triggers(engine, statement)

    assert any(words in fault for fault in faults(engine)), faults(engine)


def test_the_doctor_says_whether_the_ledger_agrees(sqlite_url: str) -> None:
    settings = Settings.from_env({"METERHOUSE_DATABASE_URL": sqlite_url})
    with a_ledger(sqlite_url) as engine:
        used_and_billed(engine)
        (fine,) = ledger_books(settings)
        with transaction(engine) as connection:
            connection.execute(text("DELETE FROM rollups"))
        (broken,) = ledger_books(settings)

    assert (fine.state, fine.found.partition(" ")[0]) == ("ok", "8")
    assert broken.state == "failed"
    assert "more)" in broken.found
    assert broken.remedy is not None
    assert broken.remedy.endswith("meterhouse rollups --rebuild")
