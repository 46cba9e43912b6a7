"""`python -m tests.bench.added`: what the gateway adds to the latency of a request at half of what
it can carry.

What it can carry is what a closed loop of 32 connections gets out of it in this run. Then requests
are due at half that rate, straight at the backend and through the gateway in turns, and count from
the moment they were due. `added` is the difference of the percentiles. What is due at a fixed pace
waits for whatever else the machine does: judge by an idle one.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median
from typing import Final

import msgspec

from tests.bench import machine, subjects
from tests.bench.goals import Goal, told
from tests.bench.house import gateway
from tests.bench.load import Spread, request_of
from tests.bench.open_load import Job, Result
from tests.bench.scenarios import SCENARIOS, job_of, measure
from tests.bench.subjects import Subject

_FULL: Final = next(each for each in SCENARIOS if each.name == "json c=32")
_CONNECTIONS: Final = 64
_GOALS_MS: Final = {"p50": 0.8, "p99": 4.0}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.added", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="figures are medians over these")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--share", type=float, default=0.5, help="of what the gateway can carry")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        backend = stack.enter_context(subjects.backend())
        ours = stack.enter_context(gateway(backend.port))
        _place(backend, ours)
        full = median(measure(ours, _FULL, arguments.seconds).per_second for _ in range(3))
        pace = full * arguments.share
        print(f"{full:,.0f} requests/s at 32 connections; {pace:,.0f} are due each second")
        results: dict[str, list[Result]] = {backend.name: [], ours.name: []}
        for number in range(arguments.rounds):
            for subject in (backend, ours) if number % 2 == 0 else (ours, backend):
                results[subject.name].append(_open(subject, pace, arguments.seconds))
    if any(each.failures for some in results.values() for each in some):
        raise RuntimeError("requests failed")
    return told(_compared(results[backend.name], results[ours.name]))


def _place(backend: Subject, ours: Subject) -> None:
    measured, others = machine.cores()
    machine.pin(ours.pids, measured)
    machine.pin((*backend.pids, *ours.helpers), others)
    machine.prefer((*backend.pids, *ours.pids, *ours.helpers))


def _open(subject: Subject, per_second: float, seconds: float) -> Result:
    job = Job(
        host="127.0.0.1",
        port=subject.port,
        request=request_of(job_of(subject, _FULL, seconds)),
        connections=_CONNECTIONS,
        per_second=per_second,
        warm_up_s=1.0,
        seconds=seconds,
    )
    command = [sys.executable, "-m", "tests.bench.open_load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        machine.pin([process.pid], machine.cores()[1])
        machine.prefer([process.pid])
        line, _ = process.communicate(msgspec.json.encode(job) + b"\n")
    return msgspec.json.decode(line, type=Result)


def _compared(direct: Sequence[Result], ours: Sequence[Result]) -> list[Goal]:
    goals = []
    for name, most_ms in _GOALS_MS.items():
        floor, seen = (_median_ms(each, name) for each in (direct, ours))
        print(f"{name}: direct {floor:.2f} ms, through the gateway {seen:.2f} ms")
        added = seen - floor
        goals.append(Goal(f"added {name}", f"{added:.2f} ms", f"<= {most_ms} ms", added <= most_ms))
    print(f"at most {max(each.behind for each in ours)} found every connection busy")
    return goals


def _median_ms(results: Sequence[Result], name: str) -> float:
    spreads: list[Spread] = [each.latency for each in results]
    return median(getattr(each, name) for each in spreads) / 1000


if __name__ == "__main__":
    sys.exit(main())
