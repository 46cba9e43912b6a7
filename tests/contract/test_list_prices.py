"""What the list asked for beside what a contract asks, line by line, on both databases."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from billing.focus import Bill, rows
from billing.meters import Meter, Meters
from billing.prices import PriceBook, PriceVersion, picos_per_token
from billing.usage import UsageEvent
from gateway.clock import parse_rfc3339
from gateway.stores.sql import explained
from gateway.stores.sql.engine import reading
from tests.invoicing import (
    ACME,
    book,
    drafted,
    is_intact,
    issued,
    lines_of,
    october,
    total,
)  # fmt: skip
from tests.ledger_events import a_ledger

LISTED = (("3.00", "2026-01-01T00:00:00Z"), ("2.00", "2026-10-15T00:00:00Z"))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def price(name: str, amount: str, since: str, tenant: str | None = None) -> PriceVersion:
    subject = ("charge", "chat-default", tenant, None, None, Meter.INPUT)
    return PriceVersion(name, *subject, picos_per_token(amount), "USD", parse_rfc3339(since))


def used(request: str, at: str, known: PriceBook) -> UsageEvent:
    card = known.charge_card(ACME, "chat-default", parse_rfc3339(at))
    return october(request, at, charge_card=card, usage=Meters(input=1_000_000))


def test_a_contract_s_lines_tell_the_list_s_price_of_their_time(engine: Engine) -> None:
    listed = [price(f"list_{amount}", amount, since) for amount, since in LISTED]
    contract = price("agreed", "2.40", "2026-01-01T00:00:00Z", ACME)
    known = PriceBook([*listed, contract])
    book(engine, used("req_1", "2026-10-14T23:59:59Z", known))
    book(engine, used("req_2", "2026-10-15T00:00:00Z", known))
    invoice = issued(engine, drafted(engine))

    lines = [line for line in lines_of(engine, invoice) if line.line_kind == "usage"]
    head, *table = rows(lines, _bill(invoice.number), "1.2")
    found = [dict(zip(head, row, strict=True)) for row in table]
    costs = ("ListUnitPrice", "ListCost", "ContractedUnitPrice", "ContractedCost", "BilledCost")

    assert total(invoice) == "4.80"
    assert sorted([row[name] for name in costs] for row in found) == [
        ["2.0", "2.0", "2.4", "2.4", "2.4"],
        ["3.0", "3.0", "2.4", "2.4", "2.4"],
    ]
    assert {row["x_PriceVersion"] for row in found} == {"agreed"}
    assert is_intact(engine, invoice) is True
    with reading(engine) as connection:
        for line in lines:
            behind = explained.behind(connection, invoice, line)
            assert (behind.events, behind.amount_picos) == (1, line.amount_picos)
            assert behind.adds_up


def _bill(number: str | None) -> Bill:
    return Bill(
        number=number, tenant_id=ACME, tenant="Acme", issuer="Gateway", currency="USD",
        period_start_us=0, period_end_us=1,
    )  # fmt: skip
