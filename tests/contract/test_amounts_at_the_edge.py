"""Amounts at the edge of what a database holds: the largest are kept and summed to the pico. One
more is booked where there is room for it, and refused with a sentence where there is none.
"""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from billing.meters import Meters
from gateway.clock import parse_rfc3339
from gateway.stores.sql import books, compaction, ledger, usage
from gateway.stores.sql.configuration import load
from gateway.stores.sql.engine import reading
from gateway.stores.sql.exact import MOST_PICOS, TooLargeError
from gateway.stores.sql.usage_reports import Question, report
from tests.invoicing import ACME, book, october
from tests.ledger_events import a_card, a_ledger
from tests.tampering import faults_after

TOKENS, PICOS_PER_TOKEN = 153_092_023, 60_247_241_209  # their product is 2^63 - 1
MOST = {"charge_card": a_card(PICOS_PER_TOKEN, 1, "most"), "usage": Meters(input=TOKENS)}
MORE = {"charge_card": a_card(PICOS_PER_TOKEN, 1, "most"), "usage": Meters(input=TOKENS, output=1)}
SPAN = {
    "start_us": parse_rfc3339("2026-10-01T00:00:00Z"),
    "end_us": parse_rfc3339("2026-11-01T00:00:00Z"),
}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def faults(engine: Engine) -> tuple[str, ...]:
    with reading(engine) as connection:
        return books.check(connection).faults


def test_the_largest_amounts_are_kept_and_summed_to_the_pico(engine: Engine) -> None:
    assert TOKENS * PICOS_PER_TOKEN == MOST_PICOS
    for n in range(3):  # one booking each: a sum of deltas would not fit one row
        book(engine, october(f"req_{n}", tags={"n": str(n)}, **MOST))
    compaction.compact(engine)

    for question in (Question(**SPAN), Question(group_by=("tag:n",), **SPAN)):
        found = report(engine, question)
        assert sum(each.charge_picos for each in found) == 3 * MOST_PICOS
    balances = ledger.balances(engine, ACME)
    assert sorted(balances.values()) == [-3 * MOST_PICOS, 3 * MOST_PICOS]
    assert faults(engine) == ()


def test_one_more_is_booked_where_there_is_room_and_named_where_there_is_none(
    engine: Engine,
) -> None:
    event = october("req_1", **MORE)
    if engine.dialect.name == "postgresql":
        assert book(engine, event) == 1
        assert faults(engine) == ()
        return

    with pytest.raises(TooLargeError, match=r"the charge of req_1:1 .* keep the ledger in Postgre"):
        book(engine, event)
    assert usage.missing(engine, ["req_1:1"]) == {"req_1:1"}


def test_what_a_request_may_come_to_is_bounded_by_the_database(engine: Engine) -> None:
    room = None if engine.dialect.name == "postgresql" else MOST_PICOS

    assert load(engine).most_picos == room


def test_postings_that_do_not_add_up_are_named_however_large_they_are(engine: Engine) -> None:
    book(engine, october("req_1", **MOST))

    found = faults_after(
        engine, f"UPDATE postings SET amount_picos = {MOST_PICOS} WHERE event_id = 'req_1:1'"
    )

    assert "the charge postings of req_1:1 do not add up to nothing" in found
