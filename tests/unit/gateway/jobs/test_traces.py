"""Spools are asked about holds: living and dead, whole and damaged."""

from pathlib import Path

from billing.usage import ENCODER
from gateway.jobs.traces import Trace, Traces, traces
from gateway.stores import spooled
from gateway.stores.spool import LOCK_NAME, Spool
from tests.ledger_events import an_event
from tests.running import run

DONE = an_event("req_done")


def _written(directory: Path, name: str) -> Spool:
    spool = Spool.open(directory, name)
    for hold_id in ("req_open", "req_done", "req_closed", "req_other"):
        spool.intent(f"{hold_id}.{name}", "s00", 1, b"")
    spool.dispatch(f"req_open.{name}", 1, "be", 2)
    spool.outcome(f"req_done.{name}", ENCODER.encode(DONE))
    spool.closed(f"req_closed.{name}")
    return spool


def test_every_spool_of_the_home_is_asked(tmp_path: Path) -> None:
    dead, living = _written(tmp_path, "dead"), _written(tmp_path, "living")
    run(dead.close())
    try:
        asked = ["req_open.dead", "req_done.living", "req_closed.living", "req_unknown"]
        assert traces(tmp_path, asked) == Traces(
            {
                "req_open.dead": Trace(writer_lives=False, is_open=True, outcomes=()),
                "req_done.living": Trace(writer_lives=True, is_open=False, outcomes=(DONE,)),
                "req_closed.living": Trace(writer_lives=True, is_open=False, outcomes=()),
            },
            living=frozenset({living.name}),
            proving=frozenset({living.name, dead.name}),
        )
    finally:
        run(living.close())


def test_where_there_are_no_spools_nothing_is_proven(tmp_path: Path) -> None:
    assert traces(tmp_path / "none", ["req_1"]) == Traces()


def test_a_damaged_spool_and_one_of_another_start_of_the_machine_prove_nothing(
    tmp_path: Path,
) -> None:
    torn, older = _written(tmp_path, "torn"), _written(tmp_path, "older")
    run(torn.close())
    run(older.close())
    segment = spooled.segments(torn.path)[0]
    segment.write_bytes(segment.read_bytes().rstrip(b"\0")[:-2])
    (older.path / LOCK_NAME).write_text("00000000-0000-0000-0000-000000000000")

    assert traces(tmp_path, ["req_unknown"]) == Traces()
