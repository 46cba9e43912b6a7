"""What is sealed of an invoice: whatever of it is changed behind the triggers is found."""

import zlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, select, text

from billing.meters import Meters
from gateway.stores.sql import books, invoice_sources, issuing
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.invoice_tables import invoice_lines, invoice_usage, invoices
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.journal_tables import journal_blocks, journal_chains
from gateway.stores.sql.tables import postings
from policies.seals import ORIGIN, seal
from tests.invoicing import book, credited, drafted, hundred, issued, october
from tests.ledger_events import a_ledger
from tests.tampering import behind_the_triggers, faults_after


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def faults(engine: Engine) -> tuple[str, ...]:
    with reading(engine) as connection:
        return books.check(connection).faults


def test_every_column_is_sealed() -> None:
    def names(table: object, *less: str) -> set[str]:
        return {column.name for column in table.columns} - set(less)  # type: ignore[attr-defined]

    sealed = invoice_sources
    assert set(sealed.LINES) == names(invoice_lines, "invoice_id")
    assert set(sealed.USAGE) == names(invoice_usage, "invoice_id")
    assert {*sealed.HEAD, *sealed.OF_A_VOID} == names(invoices, "status")


INVOICE = "kind = 'invoice' AND status = 'issued'"
NOTE = "kind = 'credit_note'"
VOIDED = "status = 'voided'"
CHANGED = {
    f"UPDATE invoices SET status = 'draft' WHERE {INVOICE}",
    f"UPDATE invoices SET status = 'draft' WHERE {NOTE}",
    f"UPDATE invoices SET status = 'issued' WHERE {VOIDED}",
    f"UPDATE invoices SET terms = replace(terms, 'Acme', 'Evil') WHERE {VOIDED}",
    f"UPDATE invoices SET terms = replace(terms, 'Berlin', 'Paris') WHERE {INVOICE}",
    f"UPDATE invoices SET credits_invoice = id WHERE {NOTE}",
    f"UPDATE invoices SET reason = 'another' WHERE {NOTE}",
    f"UPDATE invoices SET period = '2025-01' WHERE {INVOICE}",
    f"UPDATE invoices SET period_end_us = period_end_us + 1 WHERE {INVOICE}",
    f"UPDATE invoices SET void_reason = 'another' WHERE {VOIDED}",
    f"UPDATE invoices SET void_reason = 'x' WHERE {INVOICE}",
    f"UPDATE invoices SET voided_at_us = 1 WHERE {NOTE}",
    f"UPDATE invoices SET drafted_by = 'adm_x' WHERE {INVOICE}",
    f"UPDATE invoices SET early = NOT early WHERE {INVOICE}",
    "UPDATE invoice_lines SET amount_minor = amount_minor + 1",
    "UPDATE invoice_lines SET list_picos_per_token = 9",
    "UPDATE invoice_lines SET credits_line = 'x'",
    "UPDATE invoice_lines SET commitment = 'x'",
    "UPDATE invoice_lines SET commitment_picos = 0",
    "UPDATE invoice_lines SET commitment_paid = true",
    "UPDATE invoice_usage SET key = 'another'",
    "UPDATE invoice_usage SET output_tokens = output_tokens - 1",
    "DELETE FROM invoice_usage",
    "DELETE FROM invoice_series",
    "UPDATE invoice_series SET last_number = last_number - 1",
    "UPDATE rollup_deltas SET requests = requests + 500",
    "UPDATE rollup_deltas SET currency = 'EUR'",
}


def everything_issued(engine: Engine) -> None:
    book(engine, october("req_0", usage=Meters(input=1)))
    mistaken = issued(engine, drafted(engine))
    with transaction(engine) as connection:
        issuing.void(connection, issuing.locked(connection, mistaken), "typo")
    credited(engine, hundred(engine), 60_00)


def test_whatever_of_an_invoice_is_changed_is_found(engine: Engine) -> None:
    everything_issued(engine)

    unnoticed = [each for each in sorted(CHANGED) if not faults_after(engine, each)]

    assert unnoticed == []
    assert faults(engine) == ()


def test_what_was_sealed_in_the_first_format_still_holds(engine: Engine) -> None:
    invoice = hundred(engine)
    sealed_at_first(engine, invoice)
    credited(engine, invoice, 60_00)

    assert faults(engine) == ()
    changed = "UPDATE invoices SET content_sha256 = 'x' WHERE kind = 'invoice'"
    assert "ledger chain invoices, block 1" in faults_after(engine, changed)[0]


def sealed_at_first(engine: Engine, invoice: Invoice) -> None:
    """The block of its issue, as releases before made it."""
    first = (
        invoice.id, invoice.tenant_id, invoice.number, invoice.kind, invoice.currency,
        invoice.total_minor, invoice.issued_at_us, invoice.content_sha256,
    )  # fmt: skip
    seal_anew(engine, invoice, 1, first)


def test_what_was_sealed_before_there_were_commitments_still_holds(engine: Engine) -> None:
    invoice = hundred(engine)
    with reading(engine) as connection:
        seal_anew(engine, invoice, 2, invoice_sources.source_of(connection, invoice, invoice.id, 2))

    assert faults(engine) == ()
    for column, value in (("commitment", "'x'"), ("amount_minor", "1")):
        changed = f"UPDATE invoice_lines SET {column} = {value}"
        assert "ledger chain invoices, block 1" in faults_after(engine, changed)[0]


def seal_anew(engine: Engine, invoice: Invoice, version: int, source: tuple[Any, ...]) -> None:
    for table in ("journal_blocks", "journal_chains"):
        behind_the_triggers(engine, f"DELETE FROM {table} WHERE chain = 'invoices'")
    of = postings.c
    columns = (of.kind, of.account, of.tenant_id, of.amount_picos, of.currency, of.at_us)
    with transaction(engine) as connection:
        told = connection.execute(select(*columns).where(of.event_id == invoice.id))
        record = msgspec.json.encode((version, source, sorted(map(tuple, told))))
        block = seal("invoices", 1, ORIGIN, [record], 1)
        entries = zlib.compress(msgspec.json.encode([invoice.id]))
        values = msgspec.structs.asdict(block)
        connection.execute(journal_blocks.insert().values(**values, entries=entries))
        head = journal_chains.insert().values(chain="invoices", number=1, hash=block.hash)
        connection.execute(head)


def test_an_invoice_that_nobody_issued_is_found(engine: Engine) -> None:
    everything_issued(engine)
    with reading(engine) as connection:
        columns = ", ".join(connection.execute(text("SELECT * FROM invoices")).keys())
    same = columns.replace("id, ", "'inv_x', ", 1).replace("number", "'OLD-000001'")

    forged = faults_after(
        engine,
        f"INSERT INTO invoices ({columns}) SELECT {same} FROM invoices WHERE {INVOICE}",
        "UPDATE invoices SET issued_at_us = 1 WHERE id = 'inv_x'",
    )

    assert "invoice inv_x is issued, and is in no block" in forged
