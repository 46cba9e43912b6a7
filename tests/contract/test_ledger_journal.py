"""The ledger's chains: what is booked and issued is posted, sealed, and stays; whatever is changed
by hand is refused, or found.
"""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from billing.meters import Meters, Provenance
from gateway.stores.sql import books, issuing, journal, journal_origin, ledger
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.rederived import Booked
from gateway.stores.sql.tables import rollup_deltas, usage_rows
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


def begin_anew(engine: Engine, *statements: str) -> None:
    """As if the chains began now, or were remade as a whole by somebody who may write all."""
    behind_the_triggers(
        engine,
        *statements,
        "DELETE FROM journal_blocks",
        "DELETE FROM journal_chains",
        "UPDATE journal_start SET usage_rows = (SELECT count(*) FROM usage_rows), postings ="
        " (SELECT count(*) FROM postings), at_us = coalesce((SELECT max(coalesce(voided_at_us,"
        " issued_at_us)) + 1 FROM invoices), 1)",
    )
    with transaction(engine) as connection:
        journal_origin.seal_start(connection)


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
    "INSERT INTO journal_start SELECT id + 1, usage_rows, postings, at_us FROM journal_start",
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

    begin_anew(engine, "DELETE FROM postings WHERE kind IN ('invoice', 'credit_note')")

    assert faults(engine) == ()
    found = sorted(each.rpartition(": ")[2] for each in faults(engine, *anchors))
    assert found == ["it is missing"] * 2 + ["it is not the block whose hash somebody kept"]


def test_what_was_issued_before_there_was_a_journal_is_posted_with_what_follows(
    engine: Engine,
) -> None:
    invoice = hundred(engine)
    voided(engine, issued(engine, drafted(engine, "2026-09")))
    begin_anew(engine, "DELETE FROM postings WHERE kind IN ('invoice', 'void')")
    assert faults(engine) == ()
    assert DUE not in balances(engine)

    credited(engine, invoice, 1_00)

    assert balances(engine)[DUE] == 99 * 10**12
    assert faults(engine) == ()
    with reading(engine) as connection:
        entries = text("SELECT count(*) FROM journal_blocks WHERE chain = 'invoices'")
        assert connection.scalar(entries) == 2


# One row more of usage with all that follows from it, which no block has.
COLUMNS = ", ".join(column.name for column in usage_rows.columns)
OTHERS = COLUMNS.replace("event_id, request_id, ", "")
ROLLED = ", ".join(column.name for column in rollup_deltas.columns if column.name != "id")
FORGED = (
    (
        f"INSERT INTO usage_rows ({COLUMNS}) SELECT 'req_x:1', 'req_x', {OTHERS} FROM usage_rows"
        " WHERE event_id = 'req_2:1'"
    ),
    f"INSERT INTO postings SELECT 'req_x:1', {OF_REQ_1} WHERE event_id = 'req_2:1'",
    (
        f"INSERT INTO rollup_deltas ({ROLLED}) SELECT {ROLLED} FROM rollup_deltas"
        " WHERE output_tokens = 5"
    ),
)
COUNTED = "UPDATE journal_start SET usage_rows = usage_rows + 1, postings = postings + 2"


def test_a_row_that_is_in_no_block_is_found_even_where_it_is_counted(engine: Engine) -> None:
    book(engine, october("req_1"))
    book(engine, october("req_2", usage=Meters(output=5)))
    with_rows_before = "ledger chain start, block 1: its records are not those that were sealed"
    assert faults(engine) == ()

    assert faults_after(engine, *FORGED, COUNTED) == (with_rows_before,)

    begin_anew(engine)
    book(engine, october("req_3"))
    assert faults(engine) == ()
    assert faults_after(engine, *FORGED, COUNTED) == (with_rows_before,)
    instead = (
        "DELETE FROM usage_rows WHERE event_id = 'req_2:1'",
        "DELETE FROM postings WHERE event_id = 'req_2:1'",
        (
            "DELETE FROM rollup_deltas WHERE id = (SELECT max(id) FROM rollup_deltas WHERE"
            " output_tokens = 5)"
        ),
    )
    assert faults_after(engine, *FORGED, *instead) == (with_rows_before,)


def test_a_row_from_before_the_chains_is_derived_as_well(engine: Engine) -> None:
    book(engine, october("req_1"))
    book(engine, october("req_2", usage=Meters(output=5)))
    begin_anew(engine)

    found = faults_after(
        engine, "UPDATE usage_rows SET output_tokens = 4 WHERE event_id = 'req_2:1'"
    )

    assert "usage row req_2:1: its money is not what its tokens come to on its cards" in found


REPLACED = (
    "usage_rows",
    "postings",
    "rate_cards",
    "journal_blocks",
    "journal_start",
    "invoices",
    "invoice_lines",
    "invoice_usage",
)


def test_what_is_booked_is_not_replaced_by_an_insert(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        with pytest.raises(DBAPIError, match="never changes"):
            by_hand(
                engine,
                "INSERT INTO rate_cards SELECT * FROM rate_cards ON CONFLICT (id) DO UPDATE SET"
                " currency = 'EUR'",
            )
        return
    used_and_billed(engine)
    drafted(engine, "2026-09")
    for table in REPLACED:
        with pytest.raises(DBAPIError, match=r"never changes|begins as a draft"):
            by_hand(engine, f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")

    row = COLUMNS.replace("event_id", "'req_x:1'", 1)
    for statement in (
        f"INSERT OR REPLACE INTO usage_rows (rowid, {COLUMNS}) SELECT rowid, {row} FROM usage_rows",
        (
            "INSERT OR REPLACE INTO invoices (rowid, id, tenant_id, period, status, currency,"
            " period_start_us, period_end_us, total_minor, version, created_at_us) SELECT rowid,"
            " 'inv_x', tenant_id, period, 'draft', currency, 0, 0, 0, 1, 0 FROM invoices"
        ),
    ):
        with pytest.raises(DBAPIError, match="never changes"):
            by_hand(engine, statement)
    assert faults(engine) == ()
