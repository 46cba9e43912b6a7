from itertools import permutations

import msgspec

from billing.meters import Meters
from billing.rollups import (
    BUCKET_US,
    KEY_FIELDS,
    SUM_FIELDS,
    Delta,
    bucket_us,
    canonical,
    fold,
    key_of,
    merge,
)
from gateway.stores.sql.tables import rollup_deltas, rollups
from tests.unit.billing.samples import ADMITTED_US, event


def test_a_bucket_is_a_quarter_of_an_hour_and_begins_on_its_edge() -> None:
    assert bucket_us(0) == 0
    assert bucket_us(BUCKET_US - 1) == 0
    assert bucket_us(BUCKET_US) == 900_000_000


def test_deltas_have_the_columns_of_the_table() -> None:
    names = [column.name for column in rollups.columns]
    assert set(Delta.__struct_fields__) == set(names)
    assert [column.name for column in rollup_deltas.columns] == ["id", *names]
    assert tuple(column.name for column in rollups.primary_key.columns) == KEY_FIELDS
    assert Delta.__struct_fields__[: len(KEY_FIELDS)] == KEY_FIELDS
    assert Delta.__struct_fields__[len(KEY_FIELDS) + 1 :] == SUM_FIELDS


def test_an_event_falls_into_the_bucket_of_its_admission_and_its_own_team() -> None:
    key = key_of(event())

    assert key.bucket_us == bucket_us(ADMITTED_US)
    assert key.team_id == "team_inner"
    assert key_of(event(cost_card=None)).cost_card == ""


def test_attempts_add_up_and_only_winners_are_requests() -> None:
    lost = event(event_id="req_01:1", winner=False, charge_picos=0)

    deltas = fold([event(), event(event_id="req_02:0"), lost])

    assert [(d.winner, d.requests, d.attempts, d.charge_picos, d.cost_picos) for d in deltas] == [
        (False, 0, 1, 0, 1_460_000_000),
        (True, 2, 2, 8_760_000_000, 2_920_000_000),
    ]


def test_every_meter_has_its_column() -> None:
    (delta,) = fold([event(usage=Meters(1, 2, 3, 4, 5))])

    assert msgspec.structs.astuple(delta)[len(KEY_FIELDS) + 3 : -2] == (1, 2, 3, 4, 5)


def test_the_order_of_events_changes_nothing() -> None:
    events = [event(event_id="a:0"), event(event_id="b:0", model="other"), event(team_path=("t",))]

    assert len({fold(order) for order in permutations(events)}) == 1


def test_no_events_are_no_rows() -> None:
    assert fold([]) == ()


def test_deltas_of_the_same_row_become_one() -> None:
    events = [event(event_id=f"req_{n}:0", model=("a", "b")[n % 2]) for n in range(6)]

    assert merge([*fold(events[3:]), *fold(events[:3])]) == fold(events)


def test_what_was_taken_back_says_nothing() -> None:
    (booked,) = fold([event(event_id="a:0")])
    figures = {name: -getattr(booked, name) for name in SUM_FIELDS}
    taken_back = msgspec.structs.replace(booked, **figures)
    (other,) = fold([event(event_id="b:0", model="other")])

    assert list(canonical(merge([booked, taken_back, other]))) == list(canonical([other]))
    (line,) = canonical([other])
    assert line.endswith(b"]\n")
