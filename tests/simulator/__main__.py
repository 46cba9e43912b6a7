"""python -m tests.simulator: many worlds, or one again. See README.md beside this file."""

import argparse

import msgspec

from tests.simulator.scenario import Scenario
from tests.simulator.shrink import told
from tests.simulator.sweep import shown, sweep
from tests.simulator.world import simulate


def main() -> int:
    """1 when a law was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first world")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--scenario", help="run this one world (JSON, as a failing run prints it)")
    given = parser.parse_args()
    if given.scenario is not None:
        report = simulate(given.seed, msgspec.json.decode(given.scenario, type=Scenario))
        print(told(report) if report.law else f"no law is broken in {report.events} events")
        return int(bool(report.law))
    tally = sweep(given.seed, given.events, processes=given.processes)
    print(shown(tally))
    for failed in tally.failed:
        print()
        print(told(failed))
    return int(bool(tally.failed))


if __name__ == "__main__":
    raise SystemExit(main())
