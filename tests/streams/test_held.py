"""Thousands of streams held by one worker: what they weigh, and that nothing stays behind when
every client vanishes at once.
"""

import resource
import time
from pathlib import Path

import pytest

from gateway import clock
from tests.streams.crowd import stream_body
from tests.streams.rig import MODEL, Rig, rig

MOST_MIB = 400.0  # for the whole worker, with MANY streams
MANY = 5_000
CHUNK_EVERY_MS = 5_000
FEW = 40
HOLD_LIFE_S = 32  # longer than a hold lives when nobody extends it


def test_every_stream_of_a_vanished_crowd_is_let_go(shared: Rig) -> None:
    hold_and_vanish(shared, streams=400, seconds=0.0)


@pytest.mark.long
def test_five_thousand_streams_fit_and_are_all_let_go_when_every_client_vanishes(
    tmp_path: Path,
) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2 * MANY + 1_000:
        pytest.skip("the hard limit of open files is too low here")
    with rig(tmp_path / "home") as r:
        weight, _ = hold_and_vanish(r, streams=MANY, seconds=HOLD_LIFE_S)
        assert weight <= MOST_MIB


def hold_and_vanish(
    r: Rig, streams: int, seconds: float, at_once: int = MANY
) -> tuple[float, float]:
    """MiB that the worker weighed with the streams open; seconds until nothing was left of them."""
    began_us = clock.now_us()
    with r.crowd() as crowd:
        body = stream_body(MODEL, tokens=4_000, chunk_delay_ms=CHUNK_EVERY_MS)
        opened = crowd.tell(open=streams, body=body, at_once=at_once)
        assert (opened.streaming, opened.refused) == (streams, {}), opened.refused
        assert r.descriptors() >= r.resting + 2 * streams
        time.sleep(seconds)
        weight = r.resident_mib()
        now = crowd.tell()
        assert (now.streaming, now.ended) == (streams, 0)
        assert r.left().in_flight == r.left().holds == streams
        assert r.expired_holds() == 0
    took = r.until_nothing_is_left(r.resting, within_s=60)
    assert all(entry.client_disconnected for entry in r.book())
    rows = r.ledger(streams, began_us)
    assert sorted(row.request_id for row in rows) == sorted(e.request_id for e in r.book())
    _report(r, streams, weight, took)
    return weight, took


def _report(r: Rig, streams: int, weight: float, took: float) -> None:
    print(
        f"\n{streams} streams: {weight:.0f} MiB with all of them open, let go in {took:.1f} s,"
        f" {r.resident_mib():.0f} MiB afterwards"
    )


def test_a_worker_refuses_whom_it_has_no_descriptors_for_and_serves_the_others(
    shared: Rig,
) -> None:
    body = stream_body(MODEL, tokens=4_000, chunk_delay_ms=50)
    before = resource.prlimit(shared.worker, resource.RLIMIT_NOFILE)
    resource.prlimit(shared.worker, resource.RLIMIT_NOFILE, (256 + 2 * FEW, before[1]))
    try:
        with shared.crowd() as crowd:
            opened = crowd.tell(open=2 * FEW, body=body, at_once=2 * FEW)
            assert opened.streaming == FEW
            assert sum(opened.refused.values()) == FEW
            assert set(opened.refused) <= {"503 overloaded", "nothing"}
            time.sleep(0.5)
            later = crowd.tell()
            assert later.streaming == FEW
            assert later.events > opened.events
        shared.until_nothing_is_left(shared.resting, within_s=60)
        with shared.crowd() as crowd:
            assert crowd.tell(open=FEW, body=body, at_once=5).streaming == FEW
    finally:
        resource.prlimit(shared.worker, resource.RLIMIT_NOFILE, before)
