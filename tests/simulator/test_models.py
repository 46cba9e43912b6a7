"""The simulator is trusted while its store does what the scripts do, and its ledger what the SQL
does: fed with what a world full of faults asked of them, they agree step by step.
"""

from collections.abc import Sequence
from random import Random
from typing import Any, get_args

import msgspec
import pytest
import redis
from sqlalchemy import Engine, select

from gateway.jobs.estimates import without_evidence
from gateway.stores.recount import asked_of
from gateway.stores.redis import keys, wire
from gateway.stores.sql import epochs, spent, usage
from gateway.stores.sql.engine import reading
from gateway.stores.sql.tables import usage_rows
from policies import budgets, idempotency, leases, rebuild, recount, slices
from policies.budgets import Account, Admission, Settlement, State
from policies.idempotency import Keeping, Tickets
from policies.leases import NEVER, LeaseAsked, TakenBack
from policies.recount import Correction
from policies.slices import SliceAsked
from tests.ledger_events import a_ledger
from tests.property.test_lua_equals_model import (
    DECODE,
    FOREVER_MS,
    Extend,
    Release,
    Settle,
    Step,
    in_model,
    in_store,
    stored,
    without_empty,
)
from tests.repairing import Correct, Restore, repaired_in_model, repaired_in_store
from tests.simulator import house
from tests.simulator.ledger import Delivered, Ledger
from tests.simulator.scenario import ALL, Fault, Scenario
from tests.simulator.store import TAG, Scripts
from tests.simulator.world import Parts, World
from tests.ticketing import as_stored, stored_tickets

SCENARIO = Scenario(
    events=6_000, clients=20, budget=30, think_us=1_000_000, slice=64, outage="open", keyed=50,
    faults=ALL - {Fault.CUT_OFF}, per_mille=60, steps_apart=80,
)  # fmt: skip
LEASED = msgspec.structs.replace(
    SCENARIO, outage="bounded", budget=200, slice=0, keyed=0, faults=ALL, steps_apart=400
)
MOST_STEPS = 350
TICKETS = keys.tickets(TAG, "key_1")
MOST_BATCHES = 250
ASKED = {
    asked_of(one)
    for midnight_us in house.MIDNIGHTS_US
    for one in house.accounts(house.configuration(1, "strict"), midnight_us)
}


@pytest.mark.parametrize("seed", [2, 5])
def test_the_scripts_agree_with_a_world_step_by_step(store_url: str, seed: int) -> None:
    steps = _asked_of_the_store(seed, SCENARIO)

    kinds = {type(step) for step in steps}
    assert kinds == {*get_args(Step), Restore, Correct} - {LeaseAsked, TakenBack}
    assert any(isinstance(step, Settle) and step.settlement.unheld for step in steps)
    with redis.Redis.from_url(store_url) as client:
        _agree(client, steps)


@pytest.mark.parametrize("seed", [6, 7])
def test_the_scripts_agree_with_a_world_of_leases_step_by_step(store_url: str, seed: int) -> None:
    steps = _asked_of_the_store(seed, LEASED)

    kinds = {type(step) for step in steps}
    assert kinds == {*get_args(Step), Restore, Correct} - {SliceAsked, Keeping}
    assert any(isinstance(step, Settle) and any(step.settlement.leases) for step in steps)
    with redis.Redis.from_url(store_url) as client:
        _agree(client, steps)


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
            if batch in batches[::10]:
                assert spent.totals(engine, ASKED, events) == model.totals(ASKED, events)
        assert _rows(engine) == {row.event_id: _figures(row) for row in model.rows.values()}
    assert {row.hold for row in model.rows.values()} == {
        "settled",
        "absent",
        "estimated",
        "reversed",
    }


def test_the_ledger_counts_epochs_as_its_model_does(database_url: str) -> None:
    model = Ledger()
    with a_ledger(database_url) as engine:
        for seen in (0, 0, 7, 3):
            assert epochs.begin(engine, TAG, seen) == model.begin(seen)
            with reading(engine) as connection:
                assert epochs.numbers(connection) == {TAG: model.remembered()}


def _agree(client: redis.Redis, steps: Sequence[Step | Restore | Correct]) -> None:
    lease = keys.lease(f"reap:{{{TAG}}}")
    state = State(leases={lease: "mine"})
    client.set(lease, "mine")
    client.set(keys.epoch(TAG), "open:1:0:abc")
    for step in steps:
        if isinstance(step, Restore | Correct):
            now_us, (answer,) = repaired_in_store(client, TAG, step)
            state, expected = repaired_in_model(state, step, now_us)
        else:
            now_us, (answer,) = in_store(client, TAG, [step])
            state, expected = in_model(state, step, now_us)
        assert DECODE.get(type(step), wire.found)(step, now_us, answer) == expected, step
        assert stored(client, TAG) == without_empty(state)
        assert as_stored(stored_tickets(client, TAG)) == as_stored(state.tickets)


def _asked_of_the_store(seed: int, scenario: Scenario) -> list[Step | Restore | Correct]:
    """What a world asks, in windows that are open now; its reapers have the test's lease. Of the
    first steps most, and of what is rarely asked the first.
    """
    steps: list[Step | Restore | Correct] = []

    def admit(state: State, ask: Admission, now_us: int) -> Any:
        ticket = ask.ticket and msgspec.structs.replace(ask.ticket, index=TICKETS)
        steps.append(msgspec.structs.replace(ask, accounts=_open(ask.accounts), ticket=ticket))
        return budgets.admit(state, ask, now_us)

    def settle(state: State, done: Settlement, now_us: int) -> Any:
        reaping = done.reaping
        if reaping is not None:
            lease = keys.lease(f"reap:{{{TAG}}}")
            reaping = msgspec.structs.replace(reaping, late_ms=0, lease=lease, token="mine")
        unheld = _open(done.unheld)
        steps.append(Settle(msgspec.structs.replace(done, reaping=reaping, unheld=unheld)))
        return budgets.settle(state, done, now_us)

    def release(state: State, hold_id: str, corrections: Any, now_us: int) -> Any:
        steps.append(Release(hold_id, tuple(corrections)))
        return budgets.release(state, hold_id, corrections, now_us)

    def extend(state: State, hold_ids: Sequence[str], ttl_ms: int, now_us: int) -> Any:
        steps.extend(Extend(hold_id, ttl_ms) for hold_id in hold_ids)
        return budgets.extend(state, hold_ids, ttl_ms, now_us)

    def take_slice(state: State, asked: SliceAsked) -> Any:
        steps.append(asked)
        return slices.take_slice(state, asked)

    def keep(tickets: Tickets, keeping: Keeping, now_ms: int) -> Any:
        steps.append(msgspec.structs.replace(keeping, index=TICKETS))
        return idempotency.keep(tickets, keeping, now_ms)

    def put_back(state: State, ask: Admission, now_us: int) -> Any:
        steps.append(Restore(msgspec.structs.replace(ask, accounts=_open(ask.accounts))))
        return rebuild.restore(state, ask, now_us)

    def correct(state: State, token: str, corrections: Sequence[Correction]) -> Any:
        steps.append(Correct(tuple(corrections)))
        return recount.correct(state, token, corrections)

    scripts = Scripts(
        admit, settle, release, extend, take_slice, keep, restore=put_back, correct=correct
    )
    World(seed, scenario, Parts(scripts=_lending(scripts, steps))).run()
    often, rare = steps[:MOST_STEPS], steps[MOST_STEPS:]
    some = [step for step in rare if isinstance(step, Restore | Correct | Keeping | TakenBack)]
    beside = [s for s in rare if isinstance(s, Settle) and s.settlement.unheld]
    return often + some[:60] + beside[:40]


def _lending(scripts: Scripts, steps: list[Step | Restore | Correct]) -> Scripts:
    def lend(state: State, asked: LeaseAsked, now_us: int) -> Any:
        (account,) = _open([asked.account])
        steps.append(msgspec.structs.replace(asked, account=account))
        return leases.lend(state, asked, now_us)

    def take_back(state: State, back: TakenBack, now_us: int) -> Any:
        steps.append(msgspec.structs.replace(back, late_ms=NEVER))
        return leases.take_back(state, back, now_us)

    return msgspec.structs.replace(scripts, lend=lend, take_back=take_back)


def _open(accounts: Sequence[Account]) -> tuple[Account, ...]:
    return tuple(msgspec.structs.replace(a, start_ms=0, end_ms=FOREVER_MS) for a in accounts)


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
