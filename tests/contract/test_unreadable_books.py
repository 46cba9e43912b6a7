"""What somebody wrote that cannot even be read is named as a fault; all else is still looked at."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from gateway.stores.sql import alerts, books
from gateway.stores.sql.engine import reading
from tests.contract.test_self_checks import checked, shown
from tests.invoicing import credited, hundred
from tests.ledger_events import a_ledger
from tests.tampering import behind_the_triggers, by_hand, faults_after


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        credited(engine, hundred(engine), 1)
        yield engine


ELSEWHERE = "UPDATE usage_rows SET tags = '[]' WHERE event_id = 'req_1:1'"
FOUND_ELSEWHERE = "ledger chain usage/s00, block 1: its records are not those that were sealed"
OF_ALL = {
    "UPDATE invoices SET terms = 'x' WHERE kind = 'invoice'": "invoice INV-000001 cannot be read",
    "UPDATE invoices SET exchange = 'x' WHERE kind = 'credit_note'": "INV-CN-000001 cannot be read",
    "UPDATE invoices SET currency = 'USDx' WHERE kind = 'invoice'": "invoice INV-000001 cannot",
    "UPDATE rate_cards SET rates = {bytes}": "rate card rc_",
}
OF_SQLITE = {
    "UPDATE usage_rows SET output_tokens = 'many' WHERE event_id = 'req_2:1'": "usage row req_2:1",
    "UPDATE usage_rows SET output_tokens = 9223372036854775807": "the rollups cannot be read",
    "UPDATE journal_blocks SET content = content || 'x' WHERE chain = 'invoices'": (
        "ledger chain invoices cannot be read"
    ),
    "UPDATE journal_blocks SET sealed_at_us = 'x' WHERE chain = 'invoices'": (
        "ledger chain invoices, block 1 cannot be read"
    ),
    "UPDATE rate_cards SET rates = 'x'": "cannot be read",
    "UPDATE journal_chains SET hash = hash || 'x'": "the ledger's chains cannot be read",
}


def test_what_cannot_be_read_is_named_and_hides_nothing_else(engine: Engine) -> None:
    sqlite = engine.dialect.name == "sqlite"
    written = "CAST('x' AS blob)" if sqlite else "'x'::bytea"
    for statement, words in (OF_ALL | (OF_SQLITE if sqlite else {})).items():
        found = faults_after(engine, statement.replace("{bytes}", written), ELSEWHERE)
        assert any(words in fault for fault in found), (statement, found)
        if "journal_chains" not in statement:
            assert FOUND_ELSEWHERE in found or "usage_rows" in statement, (statement, found)


def test_a_check_that_fails_ends_as_a_fault_and_everybody_is_told(engine: Engine) -> None:
    checked(engine)
    assert shown(engine).ok
    by_hand(engine, "DELETE FROM self_checks", "ALTER TABLE invoice_series RENAME TO gone")

    deps = checked(engine)

    ledger = shown(engine)
    assert (ledger.ok, deps.checked.faults > 0, ledger.age_s >= 0) == (False, True, True)
    assert any("invoice_series" in fault for fault in ledger.faults)
    with reading(engine) as connection:
        assert {each.rule for each in alerts.RECORDS.all(connection)} == {"ledger"}
        assert connection.scalar(text("SELECT count(*) FROM self_checks")) == 1


def test_the_age_of_the_last_check_is_shown(engine: Engine) -> None:
    checked(engine)
    behind_the_triggers(engine, "UPDATE self_checks SET ended_at_us = ended_at_us - 172800000000")

    assert shown(engine).age_s // 3600 == 48


def test_a_check_that_came_to_no_end_agrees_with_nothing() -> None:
    assert books.unfinished(ValueError("of\nmore")).faults == (
        "the check came to no end: ValueError: of",
    )
