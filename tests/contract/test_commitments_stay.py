"""A commitment that invoices were issued by is kept by the database itself, on both."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from gateway.stores.sql import commitments, issuing
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.rows import Commitment
from tests.contract.test_commitment_cases import commit
from tests.invoicing import drafted, issued
from tests.ledger_events import a_ledger
from tests.tampering import by_hand

CHANGES = (
    "UPDATE commitments SET amount = '1' WHERE id = 'cmt_1'",
    "UPDATE commitments SET prepaid = NOT prepaid WHERE id = 'cmt_1'",
    "UPDATE commitments SET state = 'draft' WHERE id = 'cmt_1'",
    "UPDATE commitments SET id = 'cmt_2' WHERE id = 'cmt_1'",
    "DELETE FROM commitments WHERE id = 'cmt_1'",
)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        commit(engine, "99", prepaid=True)
        commit(engine, "1", "cmt_10", state="draft")
        yield engine


def kept(engine: Engine) -> tuple[Commitment, ...]:
    with reading(engine) as connection:
        return commitments.RECORDS.all(connection)


def void(engine: Engine, invoice: Invoice) -> None:
    with transaction(engine) as connection:
        issuing.void(connection, issuing.locked(connection, invoice), "wrong")


def test_what_was_billed_is_not_changed_by_hand_until_it_is_voided(engine: Engine) -> None:
    invoice = issued(engine, drafted(engine, "2026-07"))
    before = kept(engine)

    for statement in CHANGES:
        with pytest.raises(DBAPIError, match="never changes"):
            by_hand(engine, statement)
    assert kept(engine) == before

    by_hand(engine, "UPDATE commitments SET version = 2, approved_by = 'a' WHERE id = 'cmt_1'")
    by_hand(engine, "UPDATE commitments SET amount = '2' WHERE id = 'cmt_10'")
    void(engine, invoice)
    by_hand(engine, *CHANGES)


def test_it_is_not_replaced_either(sqlite_url: str) -> None:
    with a_ledger(sqlite_url) as engine:
        commit(engine, "99", prepaid=True)
        commit(engine, "1", "cmt_10", state="draft")
        issued(engine, drafted(engine, "2026-07"))
        for statement in (
            "INSERT OR REPLACE INTO commitments SELECT * FROM commitments WHERE id = 'cmt_1'",
            "UPDATE OR REPLACE commitments SET id = 'cmt_1' WHERE id = 'cmt_10'",
        ):
            with pytest.raises(DBAPIError, match="never changes"):
                by_hand(engine, statement)


def test_nor_truncated(postgres_url: str) -> None:
    with a_ledger(postgres_url) as engine:
        commit(engine, "99")
        with pytest.raises(DBAPIError, match="never changes"):
            by_hand(engine, "TRUNCATE commitments")
