"""Cases 10 and 11 of the acceptance cases, and what every booking must survive: attempts that were
cut off, failed or repeated. Exact amounts, on both databases.
"""

import csv
import io
import json
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import msgspec
import pytest
from sqlalchemy import Engine, func, select

from billing.csv_files import csv_text
from billing.invoices import csv_rows
from billing.meters import Meter, Meters, Provenance
from billing.money import format_picos
from billing.periods import month
from billing.prices import Rate, sealed_card
from billing.usage import UsageEvent
from gateway.stores.sql import usage
from gateway.stores.sql.engine import reading
from gateway.stores.sql.tables import usage_rows
from gateway.stores.sql.usage_reports import Group, Question, report
from gateway.stores.sql.usage_requests import FILTERS
from tests.invoicing import ACME, book, drafted, issued, lines_of, october, total
from tests.ledger_events import a_ledger

COST = sealed_card(
    "USD", [Rate(Meter.INPUT, 1_000_000, "c_in"), Rate(Meter.OUTPUT, 10_000_000, "c")]
)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def cut_off(tokens: int, provenance: Provenance, hold: str) -> UsageEvent:
    generated = Meters(output=tokens)
    return october("req_1", usage=generated, provenance=provenance, hold=hold)


ESTIMATE = cut_off(300, Provenance.ESTIMATED, "estimated")
TRUTH = cut_off(1200, Provenance.REPORTED, "settled")


def test_case_10_a_disconnect_is_estimated_and_trued_up(engine: Engine) -> None:
    usage.record(engine, [(ESTIMATE, True)])
    before = drafted(engine)
    estimated = of_usage(engine)
    usage.record(engine, [(TRUTH, False)])
    usage.record(engine, [(TRUTH, False)])
    after = drafted(engine)
    trued_up = of_usage(engine)

    assert ESTIMATE.charge_picos == 4_500_000_000
    assert estimated == {("estimated", 300, "0.0045")}
    assert trued_up == {("reported", 1200, "0.018")}
    assert format_picos(TRUTH.charge_picos - ESTIMATE.charge_picos) == "0.0135"
    assert (total(before), total(after), after.id) == ("0.00", "0.02", before.id)


def test_case_10_what_was_invoiced_as_an_estimate_is_corrected_on_the_next_one(
    engine: Engine,
) -> None:
    usage.record(engine, [(ESTIMATE, True)])
    invoice = issued(engine, drafted(engine))
    usage.record(engine, [(TRUTH, False)])

    lines = [each for each in lines_of(engine, drafted(engine, "2026-11")) if each.quantity]

    assert {each.corrects_invoice for each in lines} == {invoice.number}
    assert {
        (each.provenance, each.quantity, format_picos(each.amount_picos)) for each in lines
    } == {
        ("estimated", -300, "-0.0045"),
        ("reported", 1200, "0.018"),
    }


def test_case_11_of_three_attempts_the_one_that_answered_is_charged_and_all_cost(
    engine: Engine,
) -> None:
    spent = {"winner": False, "backend_id": "backend_a", "cost_card": COST}
    failed = october("req_1", attempt=0, usage=Meters(), status=500, **spent)
    timed_out = october("req_1", attempt=1, usage=Meters(output=400), status=504, **spent)
    answered = october(
        "req_1", attempt=2, backend_id="backend_b", cost_card=COST,
        usage=Meters(input=1000, output=200),
    )  # fmt: skip
    attempts = [failed, timed_out, answered]

    first = book(engine, *attempts)
    repeated = book(engine, *reversed(attempts))
    (whole,) = reported(engine)
    by_backend = {group.by[0]: group for group in reported(engine, "backend")}

    assert (first, repeated) == (3, 0)
    assert format_picos(whole.charge_picos) == "0.006"
    assert whole.requests == 1
    costs = {name: format_picos(group.cost_picos) for name, group in by_backend.items()}
    assert sorted(costs.values()) == ["0.003", "0.004"], (
        "A's 400 tokens are paid for by nobody else"
    )
    assert format_picos(whole.cost_picos) == "0.007"
    assert total(issued(engine, drafted(engine))) == "0.01"
    with reading(engine) as connection:
        of = usage_rows.c
        linked = connection.execute(select(of.attempt, of.winner).filter_by(request_id="req_1"))
        assert sorted(linked.all()) == [(0, False), (1, False), (2, True)]
    assert "request_id" in FILTERS


def test_a_success_of_no_tokens_is_a_row_of_nothing_and_not_no_row(engine: Engine) -> None:
    book(engine, october("req_1", usage=Meters()))

    with reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(usage_rows)) == 1
    (group,) = reported(engine)
    assert (group.requests, group.charge_picos) == (1, 0)
    assert lines_of(engine, drafted(engine)) == []


def test_more_tokens_than_a_float_can_count_survive_every_form(engine: Engine) -> None:
    many = 9_007_199_254_740_993
    pico = sealed_card("USD", [Rate(Meter.INPUT, 1, "p")])
    book(engine, october("req_1", charge_card=pico, usage=Meters(input=many)))

    invoice = drafted(engine)
    line, _ = lines_of(engine, invoice)
    rows = csv_rows([line], invoice_number=None, tenant="Acme", currency="USD")
    (row,) = csv.DictReader(io.StringIO("".join(csv_text(rows))))

    assert (line.quantity, row["quantity"]) == (many, str(many))
    assert row["amount"] == "9007.199254740993"
    assert row["unit_price_per_million"] == "0.000001"
    assert json.loads(msgspec.json.encode(line))["quantity"] == many
    (group,) = reported(engine)
    assert group.input_tokens == many


def test_amounts_below_a_millionth_are_written_without_exponent(engine: Engine) -> None:
    pico = sealed_card("USD", [Rate(Meter.INPUT, 1, "p")])
    book(engine, october("req_1", charge_card=pico, usage=Meters(input=7)))

    line, rounding = lines_of(engine, drafted(engine))

    assert format_picos(line.amount_picos) == "0.000000000007"
    assert format_picos(rounding.amount_picos) == "-0.000000000007"


def of_usage(engine: Engine) -> set[tuple[str, int, str]]:
    lines = lines_of(engine, drafted(engine))
    return {
        (each.provenance, each.quantity, format_picos(each.amount_picos))
        for each in lines
        if each.line_kind == "usage"
    }


def reported(engine: Engine, *group_by: str) -> list[Group]:
    whole = month("2026-10", ZoneInfo("Europe/Berlin"))
    asked = Question(
        start_us=whole.start_us, end_us=whole.end_us, group_by=group_by, filters={"tenant_id": ACME}
    )
    return list(report(engine, asked))
