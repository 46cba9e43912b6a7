"""Every line of an invoice is the requests behind it, to the last pico, and every request knows the
invoice that bills it.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text

from billing.meters import Meters, Provenance
from gateway.stores.sql import explained, issuing, usage_requests
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.invoices import Invoice
from tests.invoicing import ACME, book, drafted, issued, lines_of, october
from tests.ledger_events import a_card, a_ledger


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def behind(engine: Engine, invoice: Invoice) -> list[set[str]]:
    """The requests behind each line of usage; each must add up, and so must the whole."""
    with reading(engine) as connection:
        found = []
        for line in lines_of(engine, invoice):
            of_line = explained.behind(connection, invoice, line)
            assert of_line.adds_up, line
            if line.line_kind == "usage":
                events = explained.events(connection, of_line, None, 1_000)
                found.append({each.request_id for each in events})
        all_of_it = explained.behind(connection, invoice, None)
        assert all_of_it.adds_up
        return found


def test_a_line_is_the_requests_behind_it(engine: Engine) -> None:
    other = a_card(7, 9, "other")
    book(engine, *(october(f"req_{n}") for n in range(5)))
    book(engine, october("req_dear", charge_card=other, usage=Meters(output=3)))
    book(engine, october("req_lost", winner=False))
    invoice = issued(engine, drafted(engine))

    fives = {f"req_{n}" for n in range(5)}
    assert behind(engine, invoice) == [fives, fives, fives, {"req_dear"}]


def adds_up(engine: Engine, invoice: Invoice) -> list[bool]:
    """Whether each line does, and then the whole."""
    with reading(engine) as connection:
        lines = [*lines_of(engine, invoice), None]
        return [explained.behind(connection, invoice, line).adds_up for line in lines]


def test_a_draft_that_usage_was_booked_after_does_not_add_up_until_it_is_refreshed(
    engine: Engine,
) -> None:
    book(engine, october("req_1"))
    draft = drafted(engine)
    book(engine, october("req_2"))

    *lines, rounding, whole = adds_up(engine, draft)
    assert (any(lines), rounding, whole) == (False, True, False)
    assert all(adds_up(engine, drafted(engine)))


@pytest.mark.parametrize("change", ["amount_picos = amount_picos + 1", "quantity = quantity + 1"])
def test_a_line_that_was_changed_behind_the_triggers_does_not_add_up(
    sqlite_url: str, change: str
) -> None:
    with a_ledger(sqlite_url) as engine:
        book(engine, october("req_1", usage=Meters(input=5, output=3)))
        invoice = issued(engine, drafted(engine))
        with transaction(engine) as connection:
            connection.execute(text("DROP TRIGGER invoice_lines_stay"))
            connection.execute(text(f"UPDATE invoice_lines SET {change} WHERE position = 1"))

        first, *others, whole = adds_up(engine, invoice)

    assert (first, all(others)) == (False, True)
    assert whole is ("amount" not in change), "of the whole amounts are compared"


def test_what_came_late_is_behind_the_correction_and_not_behind_the_first(engine: Engine) -> None:
    book(engine, october("req_1"))
    first = issued(engine, drafted(engine))
    book(engine, october("req_late"), october("req_new", "2026-11-03T00:00:00Z"))
    second = drafted(engine, "2026-11")

    assert behind(engine, first) == [{"req_1"}] * 3
    assert behind(engine, second) == [{"req_new"}] * 3 + [{"req_late"}] * 3


def test_an_estimate_that_was_proved_wrong_after_the_invoice_is_behind_its_correction(
    engine: Engine,
) -> None:
    guess: dict[str, Any] = {"provenance": Provenance.ESTIMATED, "hold": "estimated"}
    book(engine, october("req_1", usage=Meters(input=900), **guess))
    invoice = issued(engine, drafted(engine))
    book(engine, october("req_1", usage=Meters(input=100)))
    november = drafted(engine, "2026-11")

    corrected = [line for line in lines_of(engine, november) if line.line_kind == "usage"]
    assert sorted(line.quantity for line in corrected) == [-900, 100]
    assert behind(engine, invoice) == [{"req_1"}]
    assert behind(engine, november) == [{"req_1"}] * 2


def test_a_request_knows_the_invoice_that_bills_it(engine: Engine) -> None:
    book(engine, october("req_1"))
    first = issued(engine, drafted(engine))
    book(engine, october("req_late"))
    assert numbers(engine) == {"req_1:1": first.number}

    second = issued(engine, drafted(engine, "2026-11"), early=True)
    assert numbers(engine) == {"req_1:1": first.number, "req_late:1": second.number}

    with transaction(engine) as connection:
        issuing.void(connection, issuing.locked(connection, second), "typo")
    assert numbers(engine) == {"req_1:1": first.number}
    third = drafted(engine, "2026-11")
    assert behind(engine, third) == [{"req_late"}] * 3


def numbers(engine: Engine) -> dict[str, str]:
    found = usage_requests.page(
        engine, start_us=0, end_us=2**61, filters={"tenant_id": ACME}, after=None, limit=100
    )
    with reading(engine) as connection:
        return explained.billed_by(connection, [each for request in found for each in request])
