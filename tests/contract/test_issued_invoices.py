"""Case 15 of the acceptance cases: what is issued stays, is credited at most once, and is numbered
without gaps. Exact amounts, on both databases.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import Random

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from billing.credit_notes import OverCreditedError
from billing.meters import Meters
from billing.money import format_picos
from gateway.stores.sql import invoices, issuing
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.invoices import Invoice
from tests.invoicing import (
    agree,
    book,
    credited,
    drafted,
    hundred,
    is_intact,
    issued,
    lines_of,
    october,
    total,
)  # fmt: skip
from tests.ledger_events import a_ledger


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


TAMPERING: dict[str, str] = {
    "a total": "UPDATE invoices SET total_minor = 1 WHERE id = '{id}'",
    "a status": "UPDATE invoices SET status = 'draft' WHERE id = '{id}'",
    "a number": "UPDATE invoices SET number = 'INV-1' WHERE id = '{id}'",
    "a total with a void": (
        "UPDATE invoices SET status = 'voided', total_minor = 1 WHERE id = '{id}'"
    ),
    "no invoice": "DELETE FROM invoices WHERE id = '{id}'",
    "a line": "UPDATE invoice_lines SET amount_picos = 1 WHERE invoice_id = '{id}'",
    "no line": "DELETE FROM invoice_lines WHERE invoice_id = '{id}'",
    "one more line": (
        "INSERT INTO invoice_lines SELECT invoice_id, position + 100, line_id, cost_center, team,"
        " key, model, backend_region, meter, quantity, unit, picos_per_token, price_version,"
        " amount_picos, period_start_us, period_end_us, provenance, line_kind, corrects_invoice,"
        " amount_minor, credits_line, list_picos_per_token, commitment, commitment_picos,"
        " commitment_paid FROM invoice_lines"
        " WHERE invoice_id = '{id}'"
    ),
    "no usage": "DELETE FROM invoice_usage WHERE invoice_id = '{id}'",
    "other usage": "UPDATE invoice_usage SET charge_picos = 0 WHERE invoice_id = '{id}'",
}


@pytest.mark.parametrize("statement", TAMPERING.values(), ids=TAMPERING.keys())
def test_case_15_the_database_refuses_to_change_what_is_issued(
    engine: Engine, statement: str
) -> None:
    invoice = hundred(engine)
    assert total(invoice) == "100.00"

    with pytest.raises(DBAPIError, match="issued"), transaction(engine) as connection:
        connection.execute(text(statement.format(id=invoice.id)))

    assert invoices.one(engine, invoice.id) == invoice
    assert is_intact(engine, invoice) is True


def test_case_15_an_issued_invoice_is_not_replaced_either(sqlite_url: str) -> None:
    with a_ledger(sqlite_url) as engine:
        invoice = hundred(engine)
        draft = drafted(engine, "2026-11")
        names = ", ".join(Invoice.__struct_fields__)
        copy = f"INSERT OR REPLACE INTO invoices ({names}) SELECT {names} FROM invoices"
        whole = "status = 'issued', issued_at_us = 1, terms = '', content_sha256 = ''"
        steal = f"UPDATE OR REPLACE invoices SET number = '{invoice.number}'"
        for statement in (
            f"{copy} WHERE id = '{invoice.id}'",
            f"{steal} WHERE id = '{draft.id}'",
            f"{steal}, {whole} WHERE id = '{draft.id}'",
        ):
            with pytest.raises(DBAPIError), transaction(engine) as connection:
                connection.execute(text(statement))
        assert invoices.one(engine, invoice.id) == invoice


@pytest.mark.parametrize("table", ["invoices", "invoice_lines", "invoice_usage"])
def test_case_15_what_is_issued_is_not_truncated_either(postgres_url: str, table: str) -> None:
    with a_ledger(postgres_url) as engine:
        invoice = hundred(engine)
        with pytest.raises(DBAPIError, match="issued"), transaction(engine) as connection:
            connection.execute(text(f"TRUNCATE {table} CASCADE"))
        assert is_intact(engine, invoice) is True


def test_case_15_what_was_changed_with_the_triggers_off_is_found(sqlite_url: str) -> None:
    with a_ledger(sqlite_url) as engine:
        invoice = hundred(engine)
        with transaction(engine) as connection:
            connection.execute(text("DROP TRIGGER invoice_lines_stay"))
            connection.execute(text("UPDATE invoice_lines SET team = 'Others'"))
        assert is_intact(engine, invoice) is False


def test_case_15_credit_notes_stop_at_the_invoice(engine: Engine) -> None:
    invoice = hundred(engine)

    notes = [credited(engine, invoice, minor) for minor in (60_00, 40_00)]

    assert [note.number for note in notes] == ["INV-CN-000001", "INV-CN-000002"]
    with pytest.raises(OverCreditedError):
        credited(engine, invoice, 1)
    with transaction(engine) as connection:
        issuing.void(connection, issuing.locked(connection, notes[1]), "wrong invoice")
    assert total(credited(engine, invoice, 40_00)) == "-40.00"


def test_case_15_credit_notes_stop_at_the_line(engine: Engine) -> None:
    book(engine, october("req_1", usage=Meters(input=20_000_000, output=2_666_666)))
    book(engine, october("req_2", usage=Meters(input=3, output=0)))
    invoice = issued(engine, drafted(engine))
    first, second, *_ = lines_of(engine, invoice)
    assert (first.amount_minor, second.amount_minor) == (60_00, 40_00)

    credited(engine, invoice, 59_99, first.line_id)

    with pytest.raises(OverCreditedError, match=r"0\.01 USD of the line"):
        credited(engine, invoice, 2, first.line_id)
    credited(engine, invoice, 1, first.line_id)
    credited(engine, invoice, 39_00)
    with pytest.raises(OverCreditedError, match=r"1\.00 USD of the invoice"):
        credited(engine, invoice, 2_00, second.line_id)


def test_case_15_simultaneous_notes_never_credit_more_than_there_is(engine: Engine) -> None:
    invoice = hundred(engine)

    def attempt(_: int) -> int:
        try:
            return -credited(engine, invoice, 30_00).total_minor
        except OverCreditedError:
            return 0

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(attempt, range(6))) == 90_00


def test_case_15_numbers_have_no_gaps_whatever_is_rolled_back(engine: Engine) -> None:
    months = [f"{year}-{month:02d}" for year in range(2016, 2020) for month in range(1, 13)]
    fails = set(Random(7).sample(months, 10))
    made = [drafted(engine, month) for month in months]

    def attempt(draft: Invoice) -> str | None:
        with suppress(ZeroDivisionError), transaction(engine) as connection:
            found = issuing.locked(connection, draft)
            done = issuing.issue(connection, found, "adm_1", early=False)
            return done.number if draft.period not in fails else str(1 // 0)
        return None

    with ThreadPoolExecutor(8) as pool:
        numbers = [number for number in pool.map(attempt, made) if number is not None]

    assert sorted(numbers) == [f"INV-{n:06d}" for n in range(1, len(months) - 9)]


def test_case_15_a_minimum_is_prorated_and_trued_up_on_a_line_of_its_own(engine: Engine) -> None:
    agree(engine, minimum="500", minimum_from="2026-10-16")
    used = october("req_1", "2026-10-20T00:00:00Z", usage=Meters(input=40_000_000))
    book(engine, used)

    invoice = issued(engine, drafted(engine))
    true_up = [line for line in lines_of(engine, invoice) if line.line_kind == "minimum"]

    assert [format_picos(line.amount_picos) for line in true_up] == ["138.06"]
    assert total(invoice) == "258.06"

    book(engine, october("req_late", usage=Meters(input=1_000_000)))
    agree(engine, minimum="900", minimum_from="2026-10-01")
    november = drafted(engine, "2026-11")
    late = {
        line.line_kind: format_picos(line.amount_picos)
        for line in lines_of(engine, november)
        if line.corrects_invoice == invoice.number
    }
    assert late == {"usage": "3", "minimum": "-3"}, "what the minimum paid for is not paid twice"
