"""A failing world made small: fewer events, actors, kinds of faults, and of the faults only those
that it takes. What is left breaks the same law, and does so every time.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from tests.simulator.world import Parts, Report, World, simulate

MOST_RUNS: Final = 300
Planting = Callable[[], Parts]


def shrunk(failed: Report, plant: Planting = Parts) -> Report:
    """The smallest failing world that was found within MOST_RUNS runs."""
    search = _Search(failed, plant)
    while search.fewer_actors() or search.fewer_kinds() or search.fewer_faults():
        pass
    return search.best


class _Search:
    """The best world so far. Each step answers whether it made that smaller."""

    def __init__(self, failed: Report, plant: Planting) -> None:
        self.best = failed
        self._plant = plant
        self._left = MOST_RUNS

    def _fails(self, **changes: Any) -> bool:
        if self._left == 0:
            return False
        self._left -= 1
        scenario = msgspec.structs.replace(self.best.scenario, **changes)
        report = simulate(self.best.seed, scenario, self._plant())
        if report.law != self.best.law:
            return False
        self.best = report
        return True

    def fewer_actors(self) -> bool:
        before = self.best
        for name, least in (("events", 100), ("clients", 1), ("machines", 1), ("workers", 1)):
            size = getattr(self.best.scenario, name)
            while size > least and self._fails(**{name: max(least, size // 2)}):
                size = getattr(self.best.scenario, name)
            if size > least:
                self._fails(**{name: max(least, size * 3 // 4)})
        return self.best is not before

    def fewer_kinds(self) -> bool:
        before = self.best
        for fault in sorted(self.best.scenario.faults):
            self._fails(faults=self.best.scenario.faults - {fault})
        return self.best is not before

    def fewer_faults(self) -> bool:
        before = self.best
        part = len(self.best.numbers)
        while part >= 1:
            start = 0
            while start < len(self.best.numbers):
                numbers = self.best.numbers
                if not self._fails(allowed=frozenset(numbers[:start] + numbers[start + part :])):
                    start += part
            part //= 2
        return len(self.best.numbers) < len(before.numbers)


def trace(failed: Report, plant: Planting = Parts) -> list[str]:
    """What happened to the request whose law was broken, and every fault on the way."""
    world = World(failed.seed, failed.scenario, plant())
    lines: list[str] = []
    world.kernel.trace = lines.append
    report = world.run()
    mine = f" {report.request_id} "
    return [line for line in lines if line.startswith("! ") or mine in f"{line} "]


def told(failed: Report, plant: Planting = Parts) -> str:
    """A failing world for whoever has to mend it: how it reproduces, and its story."""
    small = shrunk(failed, plant)
    scenario = msgspec.json.encode(small.scenario).decode()
    return "\n".join(
        (
            f"{small.violation}",
            f"reproduce: python -m tests.simulator --seed {small.seed} --scenario '{scenario}'",
            f"{small.events} events, {len(small.numbers)} faults:",
            *trace(small, plant)[-60:],
        )
    )
