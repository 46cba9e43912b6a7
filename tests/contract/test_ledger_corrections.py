"""Late truth: whatever the order of delivery, all sums are those of what really happened."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from billing.meters import Meters, Provenance
from billing.usage import UNKNOWN_ATTEMPT, UsageEvent
from gateway.stores.sql import ledger, usage
from gateway.stores.sql.engine import reading
from gateway.stores.sql.rollups import rolled
from gateway.stores.sql.tables import usage_rows
from gateway.stores.sql.usage_reports import Question, report
from tests.ledger_events import MICROS_PER_HOUR, NOON_US, a_ledger, an_event

Delivered = tuple[UsageEvent, bool]


def estimate(attempt: int, request: str = "req_1", **changes: Any) -> UsageEvent:
    fields = {"usage": Meters(input=1_000), "provenance": Provenance.ESTIMATED} | changes
    return an_event(request, attempt, hold="estimated", reported=None, counted=None, **fields)


WEAK = estimate(UNKNOWN_ATTEMPT)
LOST = an_event("req_1", 1, winner=False, usage=Meters(), backend_id="backend_x")
WON = an_event("req_1", 2)
STORIES: dict[str, tuple[Sequence[Delivered], Sequence[UsageEvent]]] = {
    "what was estimated without evidence turns out to have been answered": (
        ((WEAK, True), (LOST, False), (WON, False)),
        (LOST, WON),
    ),
    "another home's spool knows which attempt it was": (
        ((WEAK, True), (estimate(1), False)),
        (estimate(1),),
    ),
    "the attempt that was estimated ends after all": (
        ((estimate(1), True), (an_event("req_1", 1), False)),
        (an_event("req_1", 1),),
    ),
    "an attempt was lost, and of the other nobody knows the end": (
        ((LOST, False), (estimate(2), True)),
        (LOST, estimate(2)),
    ),
    "the first attempt is no attempt that nobody knows": (
        ((estimate(0, winner=False), False), (estimate(1), True)),
        (estimate(0, winner=False), estimate(1)),
    ),
    "what was estimated elsewhere without evidence is known better of the first attempt": (
        ((WEAK, True), (estimate(0, usage=Meters(input=1_000, output=256)), False)),
        (estimate(0, usage=Meters(input=1_000, output=256)),),
    ),
    "a hold that its store lost and has again ends a second time, by its worker": (
        ((WEAK, True), (WON, True)),
        (WON,),
    ),
    "a hold that came back has its attempt estimated, and then ended": (
        ((estimate(1), True), (an_event("req_1", 1), True)),
        (an_event("req_1", 1),),
    ),
    "others are none of its business": (
        ((WEAK, True), (an_event("req_2"), True), (estimate(UNKNOWN_ATTEMPT, "req_3"), True)),
        (WEAK, an_event("req_2"), estimate(UNKNOWN_ATTEMPT, "req_3")),
    ),
}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as ledger_engine:
        yield ledger_engine


@pytest.mark.parametrize("story", STORIES)
def test_the_sums_are_those_of_the_truth_in_any_order(engine: Engine, story: str) -> None:
    delivered, truth = STORIES[story]
    expected = _sums_of(truth)
    orders = itertools.product(itertools.permutations(delivered), (True, False))
    for number, (order, whole) in enumerate(orders):
        tenant = f"tenant_{number}"
        for part in _in_parts(order, whole=whole):
            usage.record(engine, [(_of(tenant, number, each), found) for each, found in part])
        usage.record(engine, [(_of(tenant, number, each), found) for each, found in delivered])

        assert _row_sums(engine, tenant) == expected, order
        assert _rollup_sums(engine, tenant) == expected, order
        assert set(ledger.balances(engine, tenant).values()) == _balances_of(truth), order


def test_what_was_booked_stands_and_what_takes_it_back_says_so(engine: Engine) -> None:
    usage.record(engine, [(WEAK, True)])
    usage.record(engine, [(WON, False)])

    assert _holds(engine) == {
        "req_1:-1": ("estimated", WEAK.charge_picos),
        "req_1:-1:reversed": ("reversed", -WEAK.charge_picos),
        "req_1:2": ("absent", WON.charge_picos),
    }


def test_an_estimate_without_evidence_of_a_hold_that_had_ended_is_of_nothing(
    engine: Engine,
) -> None:
    assert usage.record(engine, [(WEAK, False)]) == 0
    assert usage.unbooked(engine, [WEAK, WON]) == [WEAK, WON]
    usage.record(engine, [(WON, True)])

    assert usage.unbooked(engine, [WEAK, WON]) == []
    assert sorted(_holds(engine)) == ["req_1:2"]


def test_the_truth_of_an_estimated_attempt_gets_an_id_of_its_own(engine: Engine) -> None:
    truth = an_event("req_1", 1)
    usage.record(engine, [(estimate(1), True)])
    usage.record(engine, [(truth, False)])
    usage.record(engine, [(truth, False)])

    assert sorted(_holds(engine)) == ["req_1:1", "req_1:1:late", "req_1:1:reversed"]


def test_a_report_counts_a_corrected_request_once(engine: Engine) -> None:
    usage.record(engine, [(WEAK, True)])
    usage.record(engine, [(LOST, False), (WON, False)])
    day = Question(start_us=NOON_US, end_us=NOON_US + MICROS_PER_HOUR)
    cut = Question(start_us=NOON_US - 1, end_us=NOON_US + MICROS_PER_HOUR)

    for question in (day, cut):
        (group,) = report(engine, question)
        assert (group.requests, group.attempts, group.input_tokens) == (1, 2, WON.usage.input)
        assert group.charge_picos == WON.charge_picos


def _of(tenant: str, number: int, event: UsageEvent) -> UsageEvent:
    changed = {"tenant_id": tenant, "request_id": f"{event.request_id}.{number}"}
    ids = {"event_id": f"{event.request_id}.{number}:{event.attempt}"}
    fields = {name: getattr(event, name) for name in UsageEvent.__struct_fields__}
    return UsageEvent(**fields | changed | ids)


def _in_parts(order: Sequence[Delivered], *, whole: bool) -> Iterable[Sequence[Delivered]]:
    return [order] if whole else [(each,) for each in order]


def _sums_of(events: Sequence[UsageEvent]) -> tuple[int, ...]:
    """Charge, cost, requests, attempts, tokens."""
    return (
        sum(event.charge_picos for event in events),
        sum(event.cost_picos for event in events),
        sum(event.winner for event in events),
        len(events),
        sum(event.usage.total for event in events),
    )


def _rollup_sums(engine: Engine, tenant: str) -> tuple[int, ...]:
    r = rolled.c
    tokens = r.input_tokens + r.cache_read_tokens + r.output_tokens
    return _summed(engine, rolled, tenant, r.requests, r.attempts, tokens)


def _row_sums(engine: Engine, tenant: str) -> tuple[int, ...]:
    with reading(engine) as connection:
        rows = connection.execute(select(usage_rows).filter_by(tenant_id=tenant)).mappings().all()
    signs = [-1 if row["hold"] == "reversed" else 1 for row in rows]
    return (
        sum(row["charge_picos"] for row in rows),
        sum(row["cost_picos"] for row in rows),
        sum(sign for row, sign in zip(rows, signs, strict=True) if row["winner"]),
        sum(signs),
        sum(row["input_tokens"] + row["cache_read_tokens"] + row["output_tokens"] for row in rows),
    )


def _summed(engine: Engine, table: Any, tenant: str, *columns: Any) -> tuple[int, ...]:
    sums = [func.sum(column) for column in (table.c.charge_picos, table.c.cost_picos, *columns)]
    with reading(engine) as connection:
        found = connection.execute(select(*sums).where(table.c.tenant_id == tenant)).one()
    return tuple(int(value) for value in found)


def _balances_of(events: Sequence[UsageEvent]) -> set[int]:
    charge, cost, *_ = _sums_of(events)
    by_backend: dict[str, int] = {}
    for event in events:
        if event.cost_picos:
            by_backend[event.backend_id] = by_backend.get(event.backend_id, 0) + event.cost_picos
    return {charge, -charge, cost, *(-picos for picos in by_backend.values())}


def _holds(engine: Engine) -> dict[str, tuple[str, int]]:
    with reading(engine) as connection:
        rows = connection.execute(select(usage_rows)).mappings().all()
    return {row["event_id"]: (row["hold"], row["charge_picos"]) for row in rows}
