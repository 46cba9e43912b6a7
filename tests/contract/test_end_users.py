"""End users in the ledger: subjects for keyed hashes, sealed with their rows, and forgotten without
breaking a chain. On both databases.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, select

from billing.meters import Meters, Provenance
from gateway.clock import parse_rfc3339
from gateway.stores.sql import books, erasure, usage_requests
from gateway.stores.sql.end_user_tables import end_users
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.tables import usage_rows
from gateway.stores.sql.usage_reports import Question, report
from tests.invoicing import ACME, BHARAT, book, hundred, is_intact, october
from tests.ledger_events import NOON_US, a_ledger
from tests.tampering import faults_after

OCTOBER_US, DAY_US = parse_rfc3339("2026-10-01T00:00:00Z"), 86_400_000_000
ADA, BOB = f"1:{'a' * 64}", f"1:{'b' * 64}"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        yield engine


def subjects(engine: Engine) -> dict[str, Any]:
    """By event."""
    with reading(engine) as connection:
        rows = connection.execute(select(usage_rows.c.event_id, usage_rows.c.end_user))
        return {row.event_id: row.end_user for row in rows}


def test_usage_is_summed_and_listed_by_end_user(engine: Engine) -> None:
    book(engine, october("req_1", end_user=ADA), october("req_2", end_user=BOB))
    book(engine, october("req_3", end_user=ADA), october("req_4"))
    found = subjects(engine)
    ada, bob = found["req_1:1"], found["req_2:1"]
    span = {"start_us": OCTOBER_US, "end_us": OCTOBER_US + 31 * DAY_US}

    sums = report(engine, Question(group_by=("end_user", "key"), **span))
    hers = report(engine, Question(filters={"end_user": ada}, **span))
    listed = usage_requests.page(engine, filters={"end_user": ada}, after=None, limit=9, **span)

    assert {each.by: each.requests for each in sums} == {
        (ada, "key_bot"): 2, (bob, "key_bot"): 1, ("", "key_bot"): 1,
    }  # fmt: skip
    assert [each.requests for each in hers] == [2]
    assert sum(each.charge_picos for each in sums) == 2 * hers[0].charge_picos
    assert [(each[0].request_id, each[0].end_user) for each in listed] == [
        ("req_1", ada), ("req_3", ada)
    ]  # fmt: skip


def faults(engine: Engine) -> tuple[str, ...]:
    with reading(engine) as connection:
        return books.check(connection).faults


def test_one_person_is_one_subject_that_says_nothing_of_the_hash(engine: Engine) -> None:
    book(engine, october("req_1", end_user=ADA), october("req_2", end_user=BOB))
    book(engine, october("req_3", end_user=ADA), october("req_4"))

    found = subjects(engine)
    ada, bob = found["req_1:1"], found["req_2:1"]
    assert found == {"req_1:1": ada, "req_2:1": bob, "req_3:1": ada, "req_4:1": None}
    assert ada != bob
    assert all(each.startswith("eu_") and "aaaa" not in each for each in (ada, bob))


def test_a_row_delivered_twice_or_corrected_is_the_same_persons(engine: Engine) -> None:
    guess = october("req_1", hold="estimated", provenance=Provenance.ESTIMATED, end_user=ADA)
    book(engine, guess)
    book(engine, guess)
    book(engine, october("req_1", usage=Meters(input=1), end_user=ADA))

    found = subjects(engine)
    assert found.keys() == {"req_1:1", "req_1:1:reversed", "req_1:1:late"}
    assert len(set(found.values())) == 1
    assert faults(engine) == ()


def test_a_subject_is_sealed_with_its_row_and_a_row_without_one_as_it_always_was(
    engine: Engine,
) -> None:
    book(engine, october("req_ada", end_user=ADA), october("req_bob"))
    hundred(engine)
    assert faults(engine) == ()

    for changed in ("NULL", "'eu_somebodyelse'", "''"):
        assert faults_after(
            engine, f"UPDATE usage_rows SET end_user = {changed} WHERE event_id = 'req_ada:1'"
        )
    assert faults_after(engine, "UPDATE usage_rows SET end_user = '' WHERE event_id = 'req_bob:1'")


def erased(engine: Engine, *pseudonyms: str, at_us: int) -> None:
    with transaction(engine) as connection:
        erasure.erase(connection, ACME, pseudonyms, at_us)


def test_an_erasure_unlinks_a_person_and_breaks_no_chain(engine: Engine) -> None:
    book(engine, october("req_ada", end_user=ADA), october("req_bob", end_user=BOB))
    issued = hundred(engine)
    before = subjects(engine)

    erased(engine, ADA, at_us=OCTOBER_US + 20 * DAY_US)

    assert subjects(engine) == before
    assert faults(engine) == ()
    assert is_intact(engine, issued)
    with reading(engine) as connection:
        assert erasure.subjects(connection, ACME, [ADA, BOB]) == [before["req_bob:1"]]
        assert erasure.pseudonym_of(connection, ACME, before["req_ada:1"]) is None
        told = [tuple(row) for row in connection.execute(select(end_users))]
    assert before["req_ada:1"] not in {value for row in told for value in row}


def test_what_was_asked_before_an_erasure_is_nobodys_and_what_comes_after_a_strangers(
    engine: Engine,
) -> None:
    at_us = OCTOBER_US + 20 * DAY_US
    book(engine, october("req_1", end_user=ADA))
    erased(engine, ADA, BOB, at_us=at_us)  # of BOB nothing was booked yet
    erased(engine, ADA, at_us=at_us)

    book(engine, october("req_2", end_user=ADA), october("req_3", end_user=BOB))
    book(engine, october("req_4", end_user=ADA, admitted_at_us=at_us + 1))
    book(engine, october("req_5", end_user=ADA), october("req_6", end_user=BOB))
    book(engine, october("req_7", end_user=ADA, admitted_at_us=at_us + 2))

    found = subjects(engine)
    late = {name: found[f"{name}:1"] for name in ("req_2", "req_3", "req_5", "req_6")}
    assert set(late.values()) == {None}
    assert found["req_4:1"] == found["req_7:1"] not in {None, found["req_1:1"]}
    assert faults(engine) == ()


def test_that_somebody_was_erased_is_forgotten_in_the_end(engine: Engine) -> None:
    erased(engine, ADA, BOB, at_us=1)
    book(engine, october("req_1", end_user=BOB))

    assert erasure.forget(engine, 1) == 0
    assert erasure.forget(engine, 2) == 1
    assert erasure.forget(engine, 2) == 0

    with reading(engine) as connection:
        assert list(connection.scalars(select(end_users.c.pseudonym))) == [BOB]


def test_people_are_told_apart_by_tenant_whatever_was_hashed(engine: Engine) -> None:
    book(engine, october("req_1", end_user=ADA))
    other = october("req_2", end_user=ADA, tenant_id=BHARAT, team_path=("team_labs",))
    book(engine, other)

    found = subjects(engine)
    assert found["req_2:1"] is None
    with transaction(engine) as connection:
        erasure.erase(connection, BHARAT, [ADA], NOON_US)
        assert erasure.subjects(connection, ACME, [ADA]) == [found["req_1:1"]]


def test_whoever_books_the_same_people_at_once_books_the_same_subjects(engine: Engine) -> None:
    """In any order, and beside somebody who erases: nobody waits for one who waits for him."""
    people = [f"1:{n:064x}" for n in range(6)]

    def booked(worker: int) -> None:
        turned = people if worker % 2 else people[::-1]
        for round_ in range(3):
            book(engine, *(october(f"req_{worker}_{round_}_{p}", end_user=p) for p in turned))

    def erases() -> None:
        for each in people[:2] * 3:
            erased(engine, each, at_us=1)

    with ThreadPoolExecutor(5) as threads:
        under_way = [threads.submit(booked, worker) for worker in range(4)]
        under_way.append(threads.submit(erases))
        for each in under_way:
            each.result(timeout=60)

    known = subjects(engine)
    by_person = [{known[each] for each in known if person in each} for person in people]
    assert len(known) == 4 * 3 * 6
    assert [len(each - {None}) for each in by_person[2:]] == [1, 1, 1, 1]
    assert None not in set().union(*by_person[2:])
    assert faults(engine) == ()
