"""`python -m tests.bench`: the gateway beside a no-op pass-through, nginx and nobody, in one run.

Whoever is measured has a core of its own where the machine has two; everything else shares the
others. Compare figures within one run only: machines drift.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

import msgspec

from tests import servers
from tests.bench import machine, report, stages, subjects
from tests.bench.house import gateway
from tests.bench.scenarios import SCENARIOS, Measurement, measure
from tests.bench.subjects import Subject

NAMES = ("direct", "pass-through", "nginx", "gateway")


def main() -> int:
    arguments = _arguments()
    with ExitStack() as stack:
        present = _start(stack, arguments.only)
        _place(present)
        measurements = _rounds(present, arguments.rounds, arguments.seconds)
    print(report.text(measurements))
    with servers.valkey() as store_url, stages.steps(store_url) as steps:
        print(stages.text(stages.measure(steps)))
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(measurements)))
    return 1 if any(m.result.failures for m in measurements) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--rounds", type=int, default=3, help="figures are medians over these")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    return parser.parse_args()


def _start(stack: ExitStack, only: list[str]) -> list[Subject]:
    backend = stack.enter_context(subjects.backend())
    present = [backend]
    if "pass-through" in only:
        present.append(stack.enter_context(subjects.pass_through(backend.port)))
    if "nginx" in only:
        found = stack.enter_context(subjects.nginx(backend.port))
        if found is None:
            print("nginx is not installed: no comparison with it", file=sys.stderr)
        else:
            present.append(found)
    if "gateway" in only:
        present.append(stack.enter_context(gateway(backend.port)))
    return present


def _place(present: list[Subject]) -> None:
    measured, others = machine.cores()
    if measured == others:
        print("one core only: everything shares it", file=sys.stderr)
    for subject in present:
        machine.pin(subject.pids, others if subject.name == "direct" else measured)
        machine.pin(subject.helpers, others)
        machine.prefer((*subject.pids, *subject.helpers))


def _rounds(present: list[Subject], rounds: int, seconds: float) -> list[Measurement]:
    """There and back again, so that a machine that slows down slows everyone."""
    measurements = []
    for number in range(rounds):
        order = present if number % 2 == 0 else present[::-1]
        for subject in order:
            for scenario in SCENARIOS:
                print(
                    f"\r{number + 1}: {subject.name}, {scenario.name}   ", end="", file=sys.stderr
                )
                measurements.append(measure(subject, scenario, seconds))
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return measurements


if __name__ == "__main__":
    sys.exit(main())
