"""The best evidence decides how an overdue hold ends; where there is none, its input is charged."""

from collections.abc import Mapping

import msgspec
import pytest

from billing.meters import Meters, Provenance
from billing.usage import ENCODER, UsageEvent
from gateway.jobs.endings import NEVER_SENT, UNBILLABLE, Ending, ending
from gateway.jobs.traces import Trace, Traces
from policies.budgets import Admission, Hold
from tests.ledger_events import an_event

TEMPLATE = an_event("req_1", 0, usage=Meters(input=900, output=400), reported=None)
ADMISSION = Admission("req_1", 0, 1, 1, 1, 1, 1, 1, (), (), (), ENCODER.encode(TEMPLATE), "w.1")
HOLD = Hold(400, 1, ADMISSION)
DONE = an_event("req_1", 1)
REFUSED = an_event("req_1", 1, winner=False, usage=Meters())


def ended(
    trace: Trace | None = None,
    booked: Mapping[str, tuple[int, int]] | None = None,
    hold: Hold = HOLD,
    **traces: frozenset[str],
) -> Ending | None:
    of = {} if trace is None else {"req_1": trace}
    return ending(hold, Traces(of, **traces), booked or {})


def of_event(event: UsageEvent) -> tuple[int, int, UsageEvent]:
    return event.counter_nanos, event.usage.total if event.winner else 0, event


def test_what_a_dead_workers_spool_knows_is_handed_in_by_the_replay() -> None:
    assert ended(Trace(writer_lives=False, is_open=True, outcomes=())) is None
    assert ended(Trace(writer_lives=False, is_open=False, outcomes=(DONE,))) is None


def test_a_request_that_its_living_worker_is_still_at_is_left_alone() -> None:
    assert ended(Trace(writer_lives=True, is_open=True, outcomes=())) is None


def test_an_end_that_a_living_worker_wrote_down_is_what_is_posted() -> None:
    found = ended(Trace(writer_lives=True, is_open=False, outcomes=(REFUSED, DONE)))

    assert found is not None
    assert (found.money, found.tokens, found.event) == of_event(DONE)


def test_attempts_that_all_failed_end_a_hold_with_the_last_of_them() -> None:
    found = ended(Trace(writer_lives=True, is_open=False, outcomes=(REFUSED,)))

    assert found is not None
    assert (found.money, found.tokens, found.event) == of_event(REFUSED)


def test_what_its_living_worker_gave_back_is_released() -> None:
    assert ended(Trace(writer_lives=True, is_open=False, outcomes=())) is NEVER_SENT


def test_what_is_booked_is_posted_and_not_told_again() -> None:
    found = ended(booked={"req_1": (70, 30)}, proving=frozenset({"w.1"}))

    assert found is not None
    assert (found.money, found.tokens, found.event) == (70, 30, None)


@pytest.mark.parametrize("living", [frozenset(), frozenset({"w.1"})])
def test_the_silence_of_a_whole_spool_is_proof(living: frozenset[str]) -> None:
    assert ended(living=living, proving=frozenset({"w.1", "w.2"})) is NEVER_SENT


def test_the_silence_of_a_spool_that_is_being_written_to_is_asked_again() -> None:
    assert ended(living=frozenset({"w.1"})) is None


@pytest.mark.parametrize("others", [frozenset(), frozenset({"w.2"})])
def test_without_any_evidence_the_input_is_charged(others: frozenset[str]) -> None:
    found = ended(living=others, proving=others)

    assert found is not None
    assert found.event is not None
    assert found.event.usage == Meters(input=900)
    assert (found.event.event_id, found.event.attempt) == ("req_1:-1", -1)
    assert (found.event.provenance, found.event.hold) == (Provenance.ESTIMATED, "estimated")
    assert (found.money, found.tokens) == (found.event.counter_nanos, 900)
    assert found.money == 2_700_000
    assert found.event.admitted_at_us == HOLD.admitted_at_ms * 1000, "its window is the hold's"


def test_what_nobody_can_bill_is_said_aloud() -> None:
    bare = msgspec.structs.replace(HOLD, admission=msgspec.structs.replace(ADMISSION, meta=b""))

    assert ended(hold=bare) is UNBILLABLE


def test_an_estimate_is_of_the_time_the_store_admitted_it() -> None:
    found = ended(hold=Hold(400, 1_795_000_000_123, ADMISSION))

    assert found is not None
    assert found.event is not None
    assert found.event.admitted_at_us == 1_795_000_000_123_000
