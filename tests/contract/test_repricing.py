"""A month priced anew is proposed, approved once, and billed by the next invoice. On both
databases.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from billing.csv_files import csv_text
from billing.invoices import csv_rows
from billing.meters import Meter, Meters, Provenance
from billing.money import parse_picos
from billing.prices import Rate, sealed_card
from billing.usage import UNKNOWN_ATTEMPT
from gateway.clock import parse_rfc3339
from gateway.stores.sql import books, models, prices, rebuilding, repricing, rollups, worked
from gateway.stores.sql.drafts import NotBegunError
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.repricing import ChangedError, DecidedError, Repricing
from gateway.stores.sql.rows import Model, Price, QuantityTiers, Target, TierPrice
from gateway.stores.sql.tables import usage_rows
from tests.invoicing import (
    ACME,
    book,
    drafted,
    is_intact,
    issued,
    lines_of,
    october,
    total,
)
from tests.ledger_events import a_ledger

ADA, GRACE = "adm_ada", "adm_grace"
CHARGED = sealed_card(
    "USD", [Rate(Meter.INPUT, 3_000_000, "p_old_i"), Rate(Meter.OUTPUT, 15_000_000, "p_old_o")]
)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        priced(engine, "input", "3", "p_old_i")
        priced(engine, "output", "15", "p_old_o")
        yield engine


def priced(
    engine: Engine,
    meter: str,
    per_million: str,
    name: str,
    *,
    at: str = "2026-01-01T00:00:00Z",
    **more: Any,
) -> None:
    price = Price(
        id=name, meter=meter, amount_per_million=per_million, currency="USD",
        effective_from_us=parse_rfc3339(at),
        **({"book": "charge", "model": "chat-default"} | more),
    )  # fmt: skip
    with transaction(engine) as connection:
        prices.RECORDS.add(connection, price)


def used(request: str, at: str = "2026-10-14T12:00:00Z", **changes: Any) -> Any:
    return october(request, at, **({"charge_card": CHARGED} | changes))


def proposed(engine: Engine, model: str | None = None) -> Repricing:
    with transaction(engine) as connection:
        row, lines = repricing.compute(connection, ACME, "2026-10", model, ADA)
        repricing.add(connection, row, lines)
    return row


def approved(engine: Engine, row: Repricing) -> Repricing:
    with transaction(engine) as connection:
        return repricing.approve(connection, repricing.locked(connection, row), GRACE)


def charged(engine: Engine) -> int:
    with reading(engine) as connection:
        return int(connection.scalar(select(func.sum(usage_rows.c.charge_picos))) or 0)


def row_count(engine: Engine) -> int:
    with reading(engine) as connection:
        return int(connection.scalar(select(func.count()).select_from(usage_rows)) or 0)


def faults(engine: Engine) -> tuple[str, ...]:
    with reading(engine) as connection:
        return books.check(connection).faults


def as_csv(engine: Engine, invoice: Invoice) -> str:
    rows = csv_rows(
        lines_of(engine, invoice), invoice_number=invoice.number, tenant="Acme", currency="USD"
    )
    return "".join(csv_text(rows))


def test_an_issued_month_stays_and_the_next_invoice_has_the_difference(engine: Engine) -> None:
    book(engine, used("req_1", usage=Meters(input=1_000_000)))
    book(engine, used("req_2", "2026-10-20T00:00:00Z", usage=Meters(input=2_000_000, output=10)))
    invoice = issued(engine, drafted(engine))
    before = as_csv(engine, invoice)
    priced(engine, "input", "2.5", "p_new_i", at="2026-10-19T22:00:00Z")

    row = proposed(engine)
    done = approved(engine, row)

    assert (row.requests, row.corrected, row.unpriced) == (2, 1, 0)
    assert row.old_picos == parse_picos("9.00015")
    assert row.new_picos == parse_picos("8.00015") == charged(engine)
    assert (done.state, done.decided_by) == ("approved", GRACE)
    assert (as_csv(engine, invoice), is_intact(engine, invoice)) == (before, True)
    assert faults(engine) == ()
    november = drafted(engine, "2026-11")
    found = [line for line in lines_of(engine, november) if line.line_kind == "usage"]
    assert total(november) == "-1.00"
    assert {line.corrects_invoice for line in found} == {invoice.number}
    assert {line.period_start_us for line in found} == {invoice.period_start_us}
    assert sorted((line.price_version, line.quantity, line.amount_picos) for line in found) == [
        ("p_new_i", 2_000_000, parse_picos("5")),
        ("p_old_i", -2_000_000, parse_picos("-6")),
    ]
    issued(engine, november, early=True)
    assert faults(engine) == ()


def test_an_open_month_is_billed_as_if_it_had_been_charged_so(engine: Engine) -> None:
    book(engine, used("req_1", usage=Meters(input=1_000_000)))
    priced(engine, "input", "2", "p_new_i", at="2026-02-01T00:00:00Z")

    approved(engine, proposed(engine))

    invoice = drafted(engine)
    assert total(invoice) == "2.00"
    assert [line.price_version for line in lines_of(engine, invoice)] == ["p_new_i"]


def test_it_is_booked_once_and_only_while_it_would_book_the_same(engine: Engine) -> None:
    book(engine, used("req_1", usage=Meters(input=1_000_000)))
    priced(engine, "input", "2", "p_new_i", at="2026-02-01T00:00:00Z")
    row, twin = proposed(engine), proposed(engine)

    once = approved(engine, row)
    booked = row_count(engine)
    again = approved(engine, row)

    assert (again, row_count(engine)) == (once, booked)
    assert booked == 3
    with pytest.raises(ChangedError, match="propose it anew"):
        approved(engine, twin)
    assert proposed(engine).corrected == 0, "what is charged right is left alone"
    stale = proposed(engine)
    book(engine, used("req_late", usage=Meters(input=5)))
    with pytest.raises(ChangedError):
        approved(engine, stale)
    stale = proposed(engine)
    priced(engine, "input", "1", "p_newer_i", at="2026-03-01T00:00:00Z")
    with pytest.raises(ChangedError):
        approved(engine, stale)
    assert faults(engine) == ()


def test_of_approvals_at_once_one_books(engine: Engine) -> None:
    book(engine, *(used(f"req_{number}") for number in range(20)))
    priced(engine, "input", "2", "p_new_i", at="2026-02-01T00:00:00Z")
    row = proposed(engine)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: approved(engine, row), range(4)))

    assert len(set(done)) == 1
    assert (row_count(engine), charged(engine)) == (60, row.new_picos)


def test_what_is_rejected_is_never_booked(engine: Engine) -> None:
    book(engine, used("req_1"))
    priced(engine, "input", "2", "p_new_i", at="2026-02-01T00:00:00Z")
    row = proposed(engine)
    with transaction(engine) as connection:
        rejected = repricing.reject(connection, repricing.locked(connection, row), GRACE)

    with pytest.raises(DecidedError, match="rejected already"):
        approved(engine, row)

    assert (rejected.state, row_count(engine)) == ("rejected", 1)


def test_a_month_priced_anew_twice_and_back_is_what_it_was(engine: Engine) -> None:
    book(engine, used("req_1", usage=Meters(input=1_000_000)))
    for name, amount, month in (("p_2", "2", "02"), ("p_3", "7", "03"), ("p_4", "3", "04")):
        priced(engine, "input", amount, name, at=f"2026-{month}-01T00:00:00Z")
        approved(engine, proposed(engine))
        assert charged(engine) == parse_picos(amount)
    assert (row_count(engine), faults(engine)) == (7, ())


def test_an_estimate_that_was_priced_anew_gives_way_to_the_truth(engine: Engine) -> None:
    priced(engine, "input", "2", "p_new_i", at="2026-02-01T00:00:00Z")
    weak = used(
        "req_1", attempt=UNKNOWN_ATTEMPT, hold="estimated", usage=Meters(input=1_000),
        provenance=Provenance.ESTIMATED, reported=None, counted=None,
    )  # fmt: skip
    book(engine, weak)
    approved(engine, proposed(engine))
    assert charged(engine) == 1_000 * 2_000_000

    truth = used("req_1", attempt=1, usage=Meters(input=300))
    book(engine, truth)
    book(engine, truth, weak)

    assert charged(engine) == truth.charge_picos
    assert faults(engine) == ()
    approved(engine, proposed(engine))
    assert (charged(engine), faults(engine)) == (300 * 2_000_000, ())


def test_budgets_counters_attempts_and_costs_are_what_they_were(engine: Engine) -> None:
    cost = sealed_card("USD", [Rate(Meter.INPUT, 7, "c_i"), Rate(Meter.OUTPUT, 9, "c_o")])
    book(engine, used("req_1", cost_card=cost), used("req_2", cost_card=cost))
    priced(engine, "input", "2", "p_new_i", at="2026-02-01T00:00:00Z")
    sums = [func.sum(usage_rows.c[name]) for name in ("counter_nanos", "cost_picos")]

    def told() -> tuple[Any, ...]:
        at = parse_rfc3339("2026-10-01T00:00:00Z"), parse_rfc3339("2026-12-31T00:00:00Z")
        with reading(engine) as connection:
            whole = connection.execute(select(*sums)).one()
            return (*map(int, whole), *worked.shares(connection, "backend_eu", *at))

    before = told()
    approved(engine, proposed(engine))

    assert (told(), row_count(engine)) == (before, 6)
    with reading(engine) as connection:
        digest = rollups.digest(connection)
    list(rebuilding.rebuild(engine))
    with reading(engine) as connection:
        assert rollups.digest(connection) == digest


def test_what_has_no_price_of_its_model_follows_its_cost_and_what_has_none_stays(
    engine: Engine,
) -> None:
    markup = Model(
        id="model_m", name="marked", markup="1.5",
        targets=(Target(backend_id="backend_eu", upstream_model="smol"),),
    )  # fmt: skip
    with transaction(engine) as connection:
        models.RECORDS.add(connection, markup)
    place = {"book": "cost", "model": None, "backend_id": "backend_eu", "upstream_model": "smol"}
    priced(engine, "input", "4", "c_i", **place)
    book(engine, used("req_1", model="marked", usage=Meters(input=1_000_000)))
    book(engine, used("req_2", model="gone", usage=Meters(input=1_000_000)))
    book(engine, used("req_3", model="marked", usage=Meters(output=1)))

    row = proposed(engine)
    of_one = proposed(engine, "marked")
    approved(engine, row)

    assert (row.corrected, row.unpriced, row.requests) == (1, 2, 3)
    assert (of_one.new_picos - of_one.old_picos) == parse_picos("3")
    assert (of_one.requests, of_one.unpriced) == (2, 1)
    assert charged(engine) == parse_picos("9.000015")


def test_tiers_of_the_month_are_shown_and_decide_the_next_invoice(engine: Engine) -> None:
    book(engine, used("req_1", usage=Meters(input=2_000_000)))
    book(engine, used("req_2", usage=Meters(input=1_000_000)))
    tiers = QuantityTiers(
        mode="graduated", tiers=(TierPrice(above_tokens=1_000_000, amount_per_million="1"),)
    )
    priced(engine, "input", "3", "p_new_i", at="2026-02-01T00:00:00Z", quantity_tiers=tiers)
    invoice = issued(engine, drafted(engine))

    row = proposed(engine)
    approved(engine, row)

    assert (row.old_picos, row.new_picos) == (parse_picos("9"), parse_picos("9"))
    assert (row.old_tiers_picos, row.new_tiers_picos) == (0, parse_picos("4"))
    assert row.corrected == 2
    november = drafted(engine, "2026-11")
    assert (total(invoice), total(november)) == ("9.00", "-4.00")
    assert faults(engine) == ()


def test_what_is_booked_is_what_was_proposed_whatever_the_usage(engine: Engine) -> None:
    drawn = Random(20261122)
    priced(engine, "input", "2.345678", "p_new_i", at="2026-10-12T03:04:05Z")
    priced(engine, "cache_read", "0.123457", "p_new_r", at="2026-10-15T00:00:00Z")
    for number in range(60):
        day = f"2026-10-{drawn.randint(1, 31):02d}T{drawn.randint(0, 22):02d}:00:00Z"
        meters = Meters(*(drawn.choice((0, 1, drawn.randint(1, 10**7))) for _ in range(5)))
        more = {"team_path": ("team_eu",)} if number % 3 else {}
        book(engine, used(f"req_{number}", day, usage=meters, winner=number % 7 > 0, **more))
    before = charged(engine)

    row = proposed(engine)
    with reading(engine) as connection:
        lines = repricing.lines_of(connection, row.id)
    with transaction(engine) as connection:
        repricing.approve(connection, repricing.locked(connection, row), GRACE, at_once=7)

    assert before == row.old_picos == sum(line.old_picos for line in lines)
    assert charged(engine) == row.new_picos == sum(line.new_picos for line in lines)
    assert {line.team_id for line in lines} == {"team_eu", "team_support"}
    assert row.old_picos != row.new_picos
    assert faults(engine) == ()


def test_of_a_month_that_lies_ahead_nothing_is_proposed(engine: Engine) -> None:
    with transaction(engine) as connection, pytest.raises(NotBegunError):
        repricing.compute(connection, ACME, "2999-01", None, ADA)
