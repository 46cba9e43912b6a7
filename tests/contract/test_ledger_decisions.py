"""Decisions are sealed with the usage they led to, on SQLite and on PostgreSQL alike."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, delete, select, update

from billing.usage import UsageEvent
from gateway.stores.sql import decisions, usage
from gateway.stores.sql.decision_tables import decision_blocks, decision_standings
from gateway.stores.sql.decisions import Anchor, Sealed
from gateway.stores.sql.engine import reading, transaction
from policies.facts import DECODER, ENCODER, Record, Recorder
from tests.ledger_events import NOON_US, a_ledger, an_event
from tests.policy_builders import an_ask
from tests.unit.policies.test_facts import a_standing

RECORDER = Recorder(a_standing())
ONE, OTHER = "req_01m7yzmhg0znyyn9bw3sz6th1p", "req_01m7yzmhg0znyyn9bw3sz6th1q"


def decided(request: str, at_us: int = NOON_US, **changes: Any) -> UsageEvent:
    packed = RECORDER.facts(an_ask(), {}, (), (), len(request), at_us)
    return an_event(request, **{"decision": packed, "standing": RECORDER.packed} | changes)


def of_request(engine: Engine, request_id: str) -> Sealed | None:
    with reading(engine) as connection:
        return decisions.of_request(connection, request_id)


def all_of(engine: Engine) -> list[str]:
    found = decisions.in_span(engine, 0, 2 * NOON_US)
    return [sealed.record.request_id for sealed in found]


def test_a_decision_is_sealed_with_the_usage_and_read_back(database_url: str) -> None:
    event = decided(ONE, tags={"app": "desk"})
    with a_ledger(database_url) as engine:
        usage.record(engine, [(event, True)])

        (sealed,) = decisions.in_span(engine, 0, 2 * NOON_US)
        told = DECODER.decode(event.decision)
        assert sealed.record == Record(
            ONE, event.tenant_id, event.team_path, event.key_id, {"app": "desk"}, told
        )
        assert decisions.standings(engine, [told.standing]) == {RECORDER.digest: a_standing()}
        assert of_request(engine, ONE) == sealed
        assert of_request(engine, OTHER) is None
        assert decisions.verify(engine).fault is None


def test_a_repeated_delivery_seals_nothing_again(database_url: str) -> None:
    events = [(decided(f"req_{n}"), True) for n in range(5)]
    with a_ledger(database_url) as engine:
        usage.record(engine, events)
        usage.record(engine, events)
        usage.record(engine, [*events, (decided("req_9"), True)])

        assert sorted(all_of(engine)) == [f"req_{n}" for n in (0, 1, 2, 3, 4, 9)]
        assert decisions.verify(engine).blocks == 2


def test_the_truth_after_an_estimate_brings_no_second_decision(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        usage.record(engine, [(decided("req_1", hold="estimated"), True)])
        usage.record(engine, [(decided("req_1", attempt=2), False)])

        assert all_of(engine) == ["req_1"]


def test_a_decision_nobody_can_read_does_not_hold_up_the_money(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        assert usage.record(engine, [(decided("req_1", decision=b"\xc1"), True)]) == 1

        assert all_of(engine) == []


def test_many_writers_of_one_chain_leave_it_whole(database_url: str) -> None:
    with a_ledger(database_url) as engine:

        def deliver(writer: int) -> None:
            for n in range(10):
                usage.record(engine, [(decided(f"req_{writer}_{n}"), True)], f"s0{writer % 2}")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(deliver, range(4)))

        found = decisions.verify(engine)
        assert (found.fault, found.records) == (None, 40)
        assert [(block.chain, block.number) for block in found.chains] == [("s00", 20), ("s01", 20)]
        assert decisions.heads(engine) == found.chains
        assert len(set(all_of(engine))) == 40


def test_records_of_a_span_come_page_by_page(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        for n in range(45):
            usage.record(engine, [(decided(f"req_{n:02}", NOON_US + n), True)])

        some = list(decisions.in_span(engine, NOON_US + 10, NOON_US + 40))
        assert [sealed.record.request_id for sealed in some] == [f"req_{n}" for n in range(10, 40)]
        rest = decisions.in_span(engine, NOON_US + 10, NOON_US + 40, after=some[19].place)
        assert list(rest) == some[20:]


def test_refusals_are_sealed_without_usage(database_url: str) -> None:
    facts = DECODER.decode(decided("req_1").decision)
    record = Record(ONE, "tenant_acme", ("team_eu",), "key_bot", {}, facts)
    with a_ledger(database_url) as engine:
        decisions.add_alone(engine, "s00", [record], {RECORDER.digest: RECORDER.packed}, NOON_US)

        found = of_request(engine, ONE)
        assert found is not None
        assert found.record == record


def _change(engine: Engine, number: int, **values: Any) -> None:
    with transaction(engine) as connection:
        of = decision_blocks
        connection.execute(update(of).where(of.c.number == number).values(**values))


def _remove(number: int) -> Callable[[Engine], None]:
    def remove(engine: Engine) -> None:
        with transaction(engine) as connection:
            connection.execute(delete(decision_blocks).where(decision_blocks.c.number == number))

    return remove


def _swap(engine: Engine) -> None:
    """The records of one block in the place of another's."""
    with reading(engine) as connection:
        of = decision_blocks.c
        other = connection.scalars(select(of.records).where(of.number == 3)).one()
    _change(engine, 2, records=other)


def _retell(engine: Engine) -> None:
    """Other candidates and another policy under the name of those that decided."""
    other = msgspec.structs.replace(a_standing(), candidates=())
    with transaction(engine) as connection:
        told = update(decision_standings).values(standing=ENCODER.encode(other))
        connection.execute(told)


@pytest.mark.parametrize(
    ("tamper", "number", "fault"),
    [
        (_retell, 1, "what its decisions were made by is not what they name"),
        (_swap, 2, "its records are not those that were sealed"),
        (lambda engine: _change(engine, 2, records=b"x"), 2, "0 records where 1 were sealed"),
        (lambda engine: _change(engine, 2, sealed_at_us=1), 2, "its hash is not that of"),
        (lambda engine: _change(engine, 2, sealed_at_us=-1), 2, "its hash is not that of"),
        (lambda engine: _change(engine, 2, records=None), 2, "its records are missing"),
        (_remove(2), 3, "block 2 is missing"),
        (_remove(4), 4, "blocks at the end are missing"),
    ],
)
def test_tampering_with_raw_sql_is_found_at_the_first_broken_link(
    database_url: str, tamper: Callable[[Engine], None], number: int, fault: str
) -> None:
    with a_ledger(database_url) as engine:
        for n in range(4):
            usage.record(engine, [(decided(f"req_{'x' * n}"), True)])
        assert decisions.verify(engine).fault is None

        tamper(engine)

        found = decisions.verify(engine).fault
        assert found is not None
        assert (found.chain, found.number) == ("s00", number)
        assert fault in found.fault


def test_what_somebody_put_in_the_place_of_what_decided_is_not_told(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        usage.record(engine, [(decided(ONE), True)])

        _retell(engine)

        assert decisions.standings(engine, [RECORDER.digest]) == {}


def test_a_chain_that_was_remade_does_not_hold_against_what_somebody_kept(
    database_url: str,
) -> None:
    with a_ledger(database_url) as engine:
        for n in range(2):
            usage.record(engine, [(decided(f"req_{n}"), True)])
        head = decisions.heads(engine)[0]
        good = Anchor(head.chain, head.number, head.hash)

        assert decisions.verify(engine, [good]).fault is None
        other = decisions.verify(engine, [Anchor("s00", 1, head.hash)]).fault
        beyond = decisions.verify(engine, [Anchor("s00", 3, head.hash)]).fault

        assert other is not None
        assert (other.number, other.fault) == (1, "it is not the block whose hash somebody kept")
        assert beyond is not None
        assert beyond.fault == "it is missing: somebody kept its hash"
