"""The ledger's chains: what is booked and issued is posted, sealed, and stays; whatever is changed
by hand is refused, or found.
"""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from billing.meters import Meters, Provenance
from gateway.stores.sql import books, issuing, journal, ledger
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.rederived import Booked
from gateway.stores.sql.tables import usage_rows
from tests.invoicing import ACME, agree, book, credited, drafted, hundred, issued, october
from tests.ledger_events import a_ledger
from tests.tampering import behind_the_triggers, by_hand, faults_after

TEAM = "receivable/tenant_acme/team_support"
DUE, REVENUE, ROUNDING = "due/tenant_acme", "revenue/tenant_acme", "rounding/tenant_acme"
CREDITS = "credits/tenant_acme"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def balances(engine: Engine) -> dict[str, int]:
    """Of one tenant, without those that come to nothing."""
    found = ledger.balances(engine, ACME)
    assert sum(found.values()) == 0
    return {account: picos for (account, _), picos in found.items() if picos}


def faults(engine: Engine, *anchors: journal.Anchor) -> tuple[str, ...]:
    with reading(engine) as connection:
        return books.check(connection, anchors).faults


def voided(engine: Engine, invoice: Invoice) -> Invoice:
    with transaction(engine) as connection:
        return issuing.void(connection, issuing.locked(connection, invoice), "typo")


def test_every_column_of_a_usage_row_is_sealed() -> None:
    assert Booked._fields == tuple(column.name for column in usage_rows.columns)


def test_what_was_charged_becomes_due_is_credited_and_is_taken_back(engine: Engine) -> None:
    book(engine, october("req_1", usage=Meters(input=1_000_000, cache_read=1)))
    assert balances(engine) == {TEAM: 3_000_000_300_000, REVENUE: -3_000_000_300_000}

    invoice = issued(engine, drafted(engine))
    assert balances(engine) == {
        DUE: 3_000_000_000_000,
        REVENUE: -3_000_000_300_000,
        ROUNDING: 300_000,
    }

    note = credited(engine, invoice, 50)
    assert balances(engine)[DUE] == 2_500_000_000_000
    assert balances(engine)[CREDITS] == 500_000_000_000

    voided(engine, note)
    voided(engine, invoice)
    assert balances(engine) == {TEAM: 3_000_000_300_000, REVENUE: -3_000_000_300_000}
    assert faults(engine) == ()


def test_what_an_invoice_asks_for_beyond_its_usage_is_revenue(engine: Engine) -> None:
    agree(engine, minimum="500.00")
    book(engine, october("req_1", usage=Meters(input=1_000_000)))

    issued(engine, drafted(engine))

    assert balances(engine) == {DUE: 500 * 10**12, REVENUE: -500 * 10**12}
    assert faults(engine) == ()


def used_and_billed(engine: Engine) -> None:
    guess = october("req_guess", hold="estimated", provenance=Provenance.ESTIMATED)
    book(engine, guess, october("req_lost", winner=False))
    book(engine, october("req_guess", usage=Meters(input=1)))
    credited(engine, hundred(engine), 60_00)


FROZEN = (
    "UPDATE usage_rows SET charge_picos = 1",
    "UPDATE usage_rows SET tags = '{}'",
    "DELETE FROM usage_rows",
    "UPDATE postings SET amount_picos = 0",
    "DELETE FROM postings WHERE kind = 'invoice'",
    "UPDATE rate_cards SET currency = 'EUR'",
    "UPDATE journal_blocks SET count = 0",
    "DELETE FROM journal_blocks",
    "UPDATE journal_start SET usage_rows = 5",
    "UPDATE invoices SET total_minor = 1 WHERE status = 'issued'",
    "UPDATE invoice_lines SET amount_picos = 0",
    "DELETE FROM invoice_usage",
)


def test_raw_sql_that_changes_what_is_booked_or_issued_is_refused(engine: Engine) -> None:
    used_and_billed(engine)
    before = balances(engine)

    for statement in FROZEN:
        with pytest.raises(DBAPIError, match=r"never changes|never goes"):
            by_hand(engine, statement)

    assert balances(engine) == before
    assert faults(engine) == ()


OF_REQ_1 = "kind, account, tenant_id, amount_picos, currency, at_us FROM postings"
LAST = "(SELECT max(number) FROM journal_blocks WHERE chain = 'usage/s00')"
OF_REQ_2 = "event_id = 'req_2:1'"
TAMPERED = (
    # a row's tokens and money together, and the sums that they are in
    (
        "UPDATE usage_rows SET output_tokens = 0 WHERE request_id = 'req_2'",
        "UPDATE usage_rows SET charge_picos = 20100000 WHERE request_id = 'req_2'",
        f"UPDATE postings SET amount_picos = sign(amount_picos) * 20100000 WHERE {OF_REQ_2}",
        "UPDATE rollups SET charge_picos = charge_picos - 75000000 WHERE key_id = 'key_bot'",
    ),
    ("UPDATE usage_rows SET tags = '[]' WHERE request_id = 'req_1'",),
    # pairs that still add up to nothing, and one too many
    ("UPDATE postings SET amount_picos = amount_picos * 2 WHERE event_id = 'req_1:1'",),
    (f"INSERT INTO postings SELECT 'req_0:1', {OF_REQ_1} WHERE event_id = 'req_1:1'",),
    ("DELETE FROM postings WHERE kind = 'invoice'",),
    ("UPDATE rate_cards SET currency = 'EUR'",),
    # the end of a chain, with what it sealed
    (
        "DELETE FROM postings WHERE event_id = 'req_2:1'",
        "DELETE FROM usage_rows WHERE event_id = 'req_2:1'",
        f"DELETE FROM journal_blocks WHERE chain = 'usage/s00' AND number = {LAST}",
    ),
    ("UPDATE invoices SET status = 'voided', voided_at_us = 1 WHERE kind = 'credit_note'",),
    ("UPDATE invoices SET content_sha256 = 'x' WHERE kind = 'invoice'",),
)


def test_what_was_changed_behind_the_triggers_is_found(engine: Engine) -> None:
    used_and_billed(engine)

    for statements in TAMPERED:
        assert faults_after(engine, *statements), statements

    assert faults(engine) == ()


def test_a_chain_that_was_remade_is_found_against_a_head_that_was_kept(engine: Engine) -> None:
    used_and_billed(engine)
    with reading(engine) as connection:
        heads = books.check(connection).heads
    anchors = [journal.Anchor(head.chain, head.number, head.hash) for head in heads]
    assert faults(engine, *anchors) == ()

    behind_the_triggers(
        engine,
        "DELETE FROM journal_blocks",
        "DELETE FROM journal_chains",
        "UPDATE journal_start SET usage_rows = (SELECT count(*) FROM usage_rows), postings ="
        " (SELECT count(*) FROM postings)",
    )

    assert faults(engine) == ()
    assert [each.rpartition(": ")[2] for each in faults(engine, *anchors)] == ["it is missing"] * 2


def test_what_was_issued_before_there_was_a_journal_is_posted_with_what_follows(
    engine: Engine,
) -> None:
    invoice = hundred(engine)
    voided(engine, issued(engine, drafted(engine, "2026-09")))
    behind_the_triggers(
        engine,
        "DELETE FROM postings WHERE kind IN ('invoice', 'void')",
        "DELETE FROM journal_blocks",
        "DELETE FROM journal_chains",
        "UPDATE journal_start SET usage_rows = 2, postings = 4, at_us ="
        " (SELECT max(coalesce(voided_at_us, issued_at_us)) + 1 FROM invoices)",
    )
    assert faults(engine) == ()
    assert DUE not in balances(engine)

    credited(engine, invoice, 1_00)

    assert balances(engine)[DUE] == 99 * 10**12
    assert faults(engine) == ()
    with reading(engine) as connection:
        entries = text("SELECT count(*) FROM journal_blocks WHERE chain = 'invoices'")
        assert connection.scalar(entries) == 2
