"""Months that are voided, moved or thrown away while others stand: nothing is billed twice, nothing
is lost, and no number is given out for what is gone.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine, text

from billing.meters import Meter, Meters
from billing.prices import Rate, sealed_card
from billing.quantity import Schedule, Step
from gateway.stores.sql import (
    books,
    cost_centers,
    drafts,
    explained,
    invoices,
    issuing,
    teams,
    tenants,
)
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.rows import Team
from tests.invoicing import ACME, book, drafted, issued, lines_of, october, total
from tests.ledger_events import a_ledger
from tests.tampering import faults_after
from tests.unit.billing.samples import charge_picos


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def move(engine: Engine, timezone: str) -> None:
    with transaction(engine) as connection:
        row = tenants.RECORDS.one(connection, id=ACME)
        assert row is not None
        tenants.RECORDS.replace(connection, replace(row, timezone=timezone))


def void(engine: Engine, invoice: Invoice) -> None:
    with transaction(engine) as connection:
        issuing.void(connection, issuing.locked(connection, invoice), "wrong address")


def faults(engine: Engine) -> tuple[str, ...]:
    with reading(engine) as connection:
        return books.check(connection).faults


@pytest.mark.parametrize("elsewhere", ["Europe/Berlin", "Pacific/Kiritimati", "Etc/GMT+12"])
def test_a_month_voided_and_moved_is_billed_without_what_the_next_one_has_of_it(
    engine: Engine, elsewhere: str
) -> None:
    move(engine, "Etc/UTC")
    book(engine, october("req_1", usage=Meters(input=10_000_000)))
    first = issued(engine, drafted(engine))
    book(engine, october("req_late", usage=Meters(input=1_000_000)))
    november = issued(engine, drafted(engine, "2026-11"), early=True)
    assert (total(first), total(november)) == ("30.00", "3.00")

    void(engine, first)
    move(engine, elsewhere)
    again = issued(engine, drafted(engine))
    september = issued(engine, drafted(engine, "2026-09"))

    assert total(again) == "30.00", "33.00 were used, and 3.00 of them stand on November's"
    assert again.span == first.span
    assert september.period_end_us == first.period_start_us
    assert drafted(engine, "2026-11").total_minor == 0
    assert faults(engine) == ()


def test_what_is_behind_a_month_billed_anew_is_told_apart_from_what_came_late(
    engine: Engine,
) -> None:
    """By the invoice, by its lines, and from the requests."""
    book(engine, october("req_1", usage=Meters(input=10_000_000)))
    first = issued(engine, drafted(engine))
    book(engine, october("req_late", usage=Meters(input=1_000_000)))
    november = issued(engine, drafted(engine, "2026-11"), early=True)
    book(engine, october("req_later", usage=Meters(input=2_000_000)))
    void(engine, first)
    again = issued(engine, drafted(engine))
    book(engine, october("req_last", usage=Meters(input=3_000_000)))
    draft = drafted(engine, "2026-11")
    behind = {first: ["req_1"], november: ["req_late"], again: ["req_1", "req_later"],
              draft: ["req_last"]}  # fmt: skip

    with reading(engine) as connection:
        seen = []
        for invoice, requests in behind.items():
            whole = explained.behind(connection, invoice, None)
            found = explained.events(connection, whole, None, 9)
            (line,) = lines_of(engine, invoice)
            assert explained.behind(connection, invoice, line).adds_up
            assert whole.adds_up
            assert sorted(each.request_id for each in found) == requests
            seen += found
        billed = explained.billed_by(connection, seen)

    assert billed == {
        "req_1:1": again.number,
        "req_late:1": november.number,
        "req_later:1": again.number,
    }


def test_months_that_overlap_are_named(engine: Engine) -> None:
    book(engine, october("req_1"), october("req_2", "2026-09-14T12:00:00Z"))
    for month in ("2026-09", "2026-10"):
        issued(engine, drafted(engine, month))

    found = faults_after(engine, "UPDATE invoice_usage SET period_end_us = period_end_us + 1")

    assert any("two months that tenant_acme was invoiced for overlap" in fault for fault in found)


def test_a_draft_that_is_thrown_away_while_it_is_issued_stays(postgres_url: str) -> None:
    with a_ledger(postgres_url) as engine, ThreadPoolExecutor(1) as pool:
        book(engine, october("req_1"))
        draft = drafted(engine)
        with transaction(engine) as connection:
            locked = issuing.locked(connection, draft)
            thrown = pool.submit(drafts.remove_draft, engine, draft.id)
            until_it_waits(engine, thrown)
            invoice = issuing.issue(connection, locked, "adm_1", early=False)

        assert thrown.result() is False
        assert invoices.one(engine, draft.id) == invoice
        assert faults(engine) == ()


def until_it_waits(engine: Engine, step: Future[bool]) -> None:
    """Or has come to its end, having waited for nobody."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    while not step.done():
        with reading(engine) as connection:
            if connection.scalar(waiting):
                return


def test_a_team_that_is_deleted_takes_no_history_of_others_with_it(engine: Engine) -> None:
    above = Team(id="team_above", tenant_id=ACME, name="Above", cost_center="CC-OLD")
    between = Team(id="team_between", tenant_id=ACME, name="Between", parent_id=above.id)
    inside = Team(id="team_inside", tenant_id=ACME, name="Inside", parent_id=between.id)
    with transaction(engine) as connection:
        for team in (above, between, inside):
            teams.RECORDS.add(connection, team)
    book(engine, october("req_1", team_path=(above.id, between.id, inside.id)))
    invoice = issued(engine, drafted(engine))
    assert {line.cost_center for line in lines_of(engine, invoice) if line.team} == {"CC-OLD"}

    with transaction(engine) as connection:
        for before, after in (
            (above, replace(above, cost_center="CC-NEW")),
            (inside, replace(inside, parent_id=None, cost_center="CC-7")),
        ):
            cost_centers.note_change(connection, before, after)
            teams.RECORDS.replace(connection, after)
        teams.take_leave(connection, between)
        teams.RECORDS.remove(connection, id=between.id)

    assert lines_of(engine, drafted(engine, "2026-11")) == []


STEPS = (Step(0, 3_000_000), Step(10_000_000, 2_000_000), Step(20_000_000, 1_000_000))


@pytest.mark.parametrize("mode", ["graduated", "volume"])
def test_a_month_with_steps_that_is_billed_anew_comes_to_what_its_total_costs(
    engine: Engine, mode: Literal["graduated", "volume"]
) -> None:
    """The late part was billed at the steps beyond those that the voided invoice had filled."""
    schedule = Schedule(mode, STEPS)
    card = sealed_card("USD", [Rate(Meter.INPUT, 3_000_000, "p_in", schedule)])

    def use(name: str, tokens: int, team: str) -> None:
        meters, path = Meters(input=tokens), ("team_eu", team)
        book(engine, october(name, usage=meters, charge_card=card, team_path=path))

    use("req_1", 6_000_001, "team_support")
    use("req_2", 3_000_000, "team_eu")
    first = issued(engine, drafted(engine))
    use("req_late", 14_000_000, "team_support")
    issued(engine, drafted(engine, "2026-11"), early=True)
    void(engine, first)

    again = issued(engine, drafted(engine))

    with reading(engine) as connection:
        amount = connection.scalar(
            text(
                "SELECT sum(amount_picos) FROM invoice_lines JOIN invoices ON id = invoice_id"
                " WHERE status = 'issued' AND line_kind = 'usage'"
            )
        )
    assert amount == charge_picos(schedule, 23_000_001)
    tokens = {line.team: 0 for line in lines_of(engine, again) if line.team}
    for line in lines_of(engine, again):
        if line.team:
            tokens[line.team] += line.quantity
    assert tokens == {"Support": 6_000_001, "Europe": 3_000_000}
    assert faults(engine) == ()


def test_what_other_invoices_billed_at_another_discount_is_explained_where_it_is_billed_anew(
    engine: Engine,
) -> None:
    """By volume all of the month comes to another step, tokens that were discounted too."""
    whole = Schedule("volume", STEPS)
    half = whole.repriced(lambda picos: picos // 2)
    cards = {
        name: sealed_card("USD", [Rate(Meter.INPUT, steps.dearest_picos, name, steps)])
        for name, steps in (("p_in-50%", half), ("p_in", whole))
    }
    book(engine, october("req_1", usage=Meters(input=6_000_000), charge_card=cards["p_in-50%"]))
    issued(engine, drafted(engine))
    book(engine, october("req_late", usage=Meters(input=6_000_000), charge_card=cards["p_in"]))

    november = issued(engine, drafted(engine, "2026-11"), early=True)

    prices = {(line.price_version, line.quantity) for line in lines_of(engine, november)}
    assert ("p_in-50%", -6_000_000) in prices
    with reading(engine) as connection:
        assert explained.behind(connection, november, None).adds_up
        for line in lines_of(engine, november):
            assert explained.behind(connection, november, line).adds_up, line
