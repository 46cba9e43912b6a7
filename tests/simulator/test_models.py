"""The simulator is trusted while its store does what the scripts do, and its ledger what the SQL
does: fed with what a world full of faults asked of them, they agree step by step.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, select

from gateway.jobs.estimates import without_evidence
from gateway.stores.redis import keys
from gateway.stores.sql import usage
from gateway.stores.sql.engine import reading
from gateway.stores.sql.tables import usage_rows
from policies import budgets
from policies.budgets import Admission, Settlement, State
from tests.ledger_events import a_ledger
from tests.property.test_lua_equals_model import (
    FOREVER_MS,
    Extend,
    Release,
    Settle,
    Step,
    agree,
)
from tests.simulator.jobs import TAG
from tests.simulator.ledger import Delivered, Ledger
from tests.simulator.scenario import ORDINARY, Scenario
from tests.simulator.store import Scripts
from tests.simulator.world import Parts, World

SCENARIO = Scenario(events=6_000, budget=30, per_mille=60, steps_apart=80, faults=ORDINARY)
MOST_STEPS = 250
MOST_BATCHES = 250


@pytest.mark.parametrize("seed", [1, 2])
def test_the_scripts_agree_with_a_world_step_by_step(store_url: str, seed: int) -> None:
    steps = _asked_of_the_store(seed)

    assert {type(step) for step in steps} == {Admission, Settle, Release, Extend}
    agree(store_url, TAG, [[step] for step in steps])


@pytest.mark.parametrize("seed", [3, 4])
def test_the_ledger_agrees_with_a_world_step_by_step(database_url: str, seed: int) -> None:
    batches = _told_to_the_ledger(seed)
    model = Ledger()
    with a_ledger(database_url) as engine:
        for batch in batches:
            events = [event for event, _ in batch]
            ids = [event.event_id for event in events]
            requests = [event.request_id for event in events]

            assert usage.unbooked(engine, events) == model.unbooked(events)
            assert usage.ended(engine, requests, events) == model.ended(requests, events)
            assert usage.record(engine, batch) == model.record(batch)
            assert usage.missing(engine, ids) == model.missing(ids)
        assert _rows(engine) == {row.event_id: _figures(row) for row in model.rows.values()}
    assert {row.hold for row in model.rows.values()} == {
        "settled",
        "absent",
        "estimated",
        "reversed",
    }


def _asked_of_the_store(seed: int) -> list[Step]:
    """What a world asks, in windows that are open now; its reapers have the test's lease."""
    steps: list[Step] = []

    def admit(state: State, ask: Admission, now_us: int) -> Any:
        accounts = (msgspec.structs.replace(a, start_ms=0, end_ms=FOREVER_MS) for a in ask.accounts)
        steps.append(msgspec.structs.replace(ask, accounts=tuple(accounts)))
        return budgets.admit(state, ask, now_us)

    def settle(state: State, done: Settlement, now_us: int) -> Any:
        reaping = done.reaping
        if reaping is not None:
            lease = keys.lease(f"reap:{{{TAG}}}")
            reaping = msgspec.structs.replace(reaping, late_ms=0, lease=lease, token="mine")
        steps.append(Settle(msgspec.structs.replace(done, reaping=reaping)))
        return budgets.settle(state, done, now_us)

    def release(state: State, hold_id: str, corrections: Any, now_us: int) -> Any:
        steps.append(Release(hold_id, tuple(corrections)))
        return budgets.release(state, hold_id, corrections, now_us)

    def extend(state: State, hold_ids: Sequence[str], ttl_ms: int, now_us: int) -> Any:
        steps.extend(Extend(hold_id, ttl_ms) for hold_id in hold_ids)
        return budgets.extend(state, hold_ids, ttl_ms, now_us)

    World(seed, SCENARIO, Parts(scripts=Scripts(admit, settle, release, extend))).run()
    return steps[:MOST_STEPS]


class _Recorder(Ledger):
    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[Delivered]] = []

    def record(self, delivered: Sequence[Delivered]) -> int:
        self.batches.append(list(delivered))
        return super().record(delivered)


def _told_to_the_ledger(seed: int) -> list[list[Delivered]]:
    """What a world tells, and between it the same again, estimates, and holds that were gone."""
    ledger, dice = _Recorder(), Random(seed)
    World(seed, SCENARIO, Parts(ledger=ledger)).run()
    told: list[list[Delivered]] = []
    for batch in ledger.batches[:MOST_BATCHES]:
        first, _ = batch[0]
        guessed = dice.random() < 0.3
        if guessed:
            told.append([(without_evidence(first), True)])
        told.append([(e, found and e is not first and dice.random() < 0.9) for e, found in batch])
        again, _ = dice.choice(dice.choice(told))
        told.append([(again, dice.random() < 0.5), (without_evidence(first), False)])
    return told


def _figures(row: Any) -> tuple[Any, ...]:
    return (
        row.attempt,
        row.winner,
        row.hold,
        row.usage.all_input,
        row.usage.output,
        row.charge_picos,
        row.cost_picos,
        row.counter_nanos,
        row.admitted_at_us,
    )


def _rows(engine: Engine) -> dict[str, tuple[Any, ...]]:
    of = usage_rows.c
    columns = (of.attempt, of.winner, of.hold, of.input_tokens, of.output_tokens)
    money = (of.charge_picos, of.cost_picos, of.counter_nanos, of.admitted_at_us)
    with reading(engine) as connection:
        found = connection.execute(select(of.event_id, *columns, *money)).all()
    return {event_id: tuple(figures) for event_id, *figures in found}
