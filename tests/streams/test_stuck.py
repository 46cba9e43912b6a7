"""Clients that take the first bytes of their streams and nothing more, from a backend that never
pauses: what they weigh until they are given up.
"""

import time
from pathlib import Path

import pytest

from gateway import clock
from gateway.app.inbound import BLOCKED_SECONDS
from tests.streams.crowd import stream_body
from tests.streams.rig import MODEL, rig

STUCK = 200
MOST_KIB_EACH = 320.0  # a stream, and what lies on both sides of it


@pytest.mark.long
def test_clients_that_stop_reading_weigh_little_and_are_given_up(tmp_path: Path) -> None:
    with rig(tmp_path / "home") as r, r.crowd() as crowd:
        before, began_us = r.resident_mib(), clock.now_us()
        body = stream_body(MODEL, tokens=4_000, event_padding_bytes=2_000)
        opened = crowd.tell(open=STUCK, body=body, at_once=50, reading=False)
        assert (opened.streaming, opened.refused) == (STUCK, {})
        time.sleep(BLOCKED_SECONDS / 2)
        weight = (r.resident_mib() - before) * 1024 / STUCK
        assert r.left().in_flight == STUCK
        took = r.until_nothing_is_left(r.resting, within_s=BLOCKED_SECONDS + 15)
        assert weight <= MOST_KIB_EACH
        book = r.book()
        assert all(entry.client_disconnected for entry in book)
        rows = r.ledger(STUCK, began_us)
        assert {row.request_id for row in rows} == {entry.request_id for entry in book}
        assert {(row.status, row.end_by) for row in rows} == {(499, "client")}
        print(f"\n{STUCK} stuck clients: {weight:.0f} KiB each, all given up {took:.0f} s later")
