"""A spool's writer and its pruner may die at any step: what was told is there, what is
needed stays.

Segments of milliseconds instead of a minute, so that they rotate while a test looks on.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.failpoints import ALLOWED_BY, ARMED_BY
from gateway.stores import spooled
from gateway.stores.spool import Dispatch, Intent, Outcome, Record
from tests.crash.processes import ROOT
from tests.spooling import event, living_spool

WRITER = """
import os, sys, time
from pathlib import Path
from gateway.stores.spool import Spool, SpoolUnavailable
from tests.spooling import event

def write(step, *told):
    # A disk that is slower than what is written refuses it, and is asked again.
    while True:
        try:
            return step(*told)
        except SpoolUnavailable:
            time.sleep(0.005)

spool = Spool.open(Path(sys.argv[1]), "data-0", segment_us=20_000)
number = 0
while True:
    number += 1
    request = f"req_{number}"
    write(spool.intent, request, "s00", number, b"meta" * 50)
    write(spool.dispatch, request, 0, "be_1", number)
    if number % 3:
        write(spool.outcome, request, event(request, 0))
    os.write(1, f"{number}\\n".encode())
    time.sleep(0.0005)  # no faster than a disk
"""
PRUNER = """
import sys
from pathlib import Path
from gateway.stores import spooled

spooled.delete_acknowledged(Path(sys.argv[1]), lambda events: True)
"""


@contextmanager
def program(text: str, directory: Path, points: str = "") -> Iterator[subprocess.Popen[bytes]]:
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    if points:
        environ |= {ARMED_BY: points, ALLOWED_BY: "yes"}
    with (directory.parent / "said").open("wb") as said:
        command = [sys.executable, "-P", "-c", text, str(directory)]
        process = subprocess.Popen(command, env=environ, stdout=said)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def told(directory: Path) -> int:
    """How many requests the writer had written when it last said so."""
    lines = (directory.parent / "said").read_bytes().split(b"\n")[:-1]
    return int(lines[-1])


@pytest.mark.parametrize(
    ("point", "least"), [("spool.rotates", 2), ("spool.turns", 1), ("spool.syncs", 1)]
)
@pytest.mark.parametrize("action", ["kill", "stop"])
def test_whatever_its_writer_was_told_is_in_the_spool(
    tmp_path: Path, point: str, least: int, action: str
) -> None:
    directory = tmp_path / "spool"
    directory.mkdir()
    with program(WRITER, directory, f"{point}={action}@3") as writer:
        if action == "stop":
            # Also told if it ends instead, and then left for `program` to bury.
            came = os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            assert came is not None
            assert came.si_code == os.CLD_STOPPED, came
            stopped_at = told(directory)
            writer.send_signal(signal.SIGCONT)
            while told(directory) < stopped_at + 100:
                time.sleep(0.005)
            writer.kill()
        assert writer.wait(30) == -signal.SIGKILL

    (spool,) = spooled.writers(directory)
    assert len(spooled.segments(spool)) >= least
    assert spooled.proves_absence(spool)
    records = list(spooled.read(spool))
    assert _whole(records) >= told(directory)


def _whole(records: Sequence[Record]) -> int:
    """How many requests have all that was written of them, in order, from the first on."""
    for number, each in enumerate(_by_request(records), 1):
        wanted = [Intent, Dispatch, Outcome] if number % 3 else [Intent, Dispatch]
        if [type(record) for record in each] != wanted or each[0].hold_id != f"req_{number}":
            return number - 1
    return len(list(_by_request(records)))


def _by_request(records: Sequence[Record]) -> Iterator[list[Record]]:
    part: list[Record] = []
    for record in records:
        if isinstance(record, Intent) and part:
            yield part
            part = []
        part.append(record)
    if part:
        yield part


def test_a_pruner_that_dies_has_deleted_nothing_that_is_needed(tmp_path: Path) -> None:
    segments = [[*_done(f"req_{n}")] for n in range(5)]
    segments[3].append(Intent("req_open", "s00", 1, b""))
    with living_spool(tmp_path / "spool", segments) as writer:
        for points, status, left in (("prune.deletes=kill@2", -signal.SIGKILL, 4), ("", 0, 2)):
            with program(PRUNER, writer, points) as pruner:
                assert pruner.wait(30) == status
            assert len(spooled.segments(writer)) == left
        assert "req_open" in spooled.open_requests(spooled.read(writer))


def _done(request: str) -> tuple[Record, ...]:
    return (
        Intent(request, "s00", 1, b""),
        Dispatch(request, 0, "be_1", 1),
        Outcome(request, event(request, 0)),
    )
