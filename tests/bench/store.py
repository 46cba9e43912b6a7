"""`python -m tests.bench.store`: what a request costs the store, by command.

The store's one thread is a shard's ceiling. Counted over closed loops of plain requests and of
streams, everything on: admission, settlement with the journal's entry, the jobs that read and clear
the journal, and whatever runs by the clock. CPU is that of the store's process. The commands' own
times are what it says itself, by the clock, without reading, writing and keeping its file; what
scripts and transactions call is listed too, and is inside theirs.
"""

import argparse
import os
import re
import sys
from contextlib import ExitStack

import msgspec
import redis

from tests.bench import machine, subjects
from tests.bench.house import gateway
from tests.bench.scenarios import SCENARIOS, Scenario, measure
from tests.bench.subjects import Subject

_SOCKET = re.compile(r"(/\S+\.sock)")
_SHOWN_US = 0.3  # a request
_ASKED = [each for each in SCENARIOS if not each.delay_ms]


class Counted(msgspec.Struct, frozen=True):
    requests: float
    cpu_us: float  # of the process, a request
    commands: dict[str, tuple[float, float]]  # calls and microseconds, a request


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.store", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        backend = stack.enter_context(subjects.backend())
        ours = stack.enter_context(gateway(backend.port))
        measured, others = machine.cores()
        machine.pin(ours.pids, measured)
        machine.pin((*backend.pids, *ours.helpers), others)
        for scenario in _ASKED:
            _tell(scenario, counted(ours, scenario, arguments.seconds))
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return 0


def counted(ours: Subject, scenario: Scenario, seconds: float) -> Counted:
    pid, path = _store_of(ours)
    with redis.Redis.from_url(f"unix://{path}") as store:
        store.config_resetstat()
        before_s = machine.cpu_seconds([pid]) or 0.0
        result = measure(ours, scenario, seconds).result
        cpu_s = (machine.cpu_seconds([pid]) or 0.0) - before_s
        told = store.info("commandstats")
    # The load's own warm-up is counted by the store, too.
    requests = result.requests / result.seconds * (seconds + max(0.5, seconds / 6))
    commands = {
        name.removeprefix("cmdstat_"): (each["calls"] / requests, each["usec"] / requests)
        for name, each in told.items()
    }
    return Counted(requests, cpu_s * 1e6 / requests, commands)


def _store_of(ours: Subject) -> tuple[int, str]:
    for pid in ours.helpers:
        found = _SOCKET.search(machine.command(pid))
        if found and "gateway" not in machine.command(pid):
            return pid, found[1]
    raise RuntimeError("the gateway has no store of its own")


def _tell(scenario: Scenario, seen: Counted) -> None:
    print(
        f"{scenario.name}: {seen.requests:,.0f} requests; CPU of the store {seen.cpu_us:.1f} us a"
        f" request, so one carries {1e6 / seen.cpu_us:,.0f} a second"
    )
    shown = {name: each for name, each in seen.commands.items() if each[1] >= _SHOWN_US}
    for name, (calls, us) in sorted(shown.items(), key=lambda item: -item[1][1]):
        print(f"  {name:16} {us:6.1f} us   {calls:6.3f} calls")


if __name__ == "__main__":
    sys.exit(main())
