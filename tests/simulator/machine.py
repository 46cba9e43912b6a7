"""Machines: a disk, a clock that may be wrong, and the processes that somebody starts again."""

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.dataplane.lease_book import LeaseBook
from gateway.stores.redis.epochs import Guard
from tests.simulator.backend import Backend, Work
from tests.simulator.dice import Dice
from tests.simulator.kernel import Kernel, Process
from tests.simulator.laws import Laws
from tests.simulator.ledger import Ledger
from tests.simulator.scenario import Fault, Scenario
from tests.simulator.spools import Disk
from tests.simulator.store import QuotaStore


class Surroundings(msgspec.Struct, frozen=True):
    """What every actor can reach."""

    scenario: Scenario
    kernel: Kernel
    dice: Dice
    store: QuotaStore
    ledger: Ledger
    backends: dict[str, Backend]
    book: dict[tuple[str, int], Work]
    laws: Laws
    guard: Callable[..., Guard]
    is_whole: Callable[..., bool]
    lease_book: Callable[..., LeaseBook]
    patience_ms: Callable[..., int | None]
    bus: Any


class Machine:
    """`make(machine, process)` fills a new process; one of each name runs at a time."""

    def __init__(self, name: str, world: Surroundings) -> None:
        self.name = name
        self.disk = Disk()
        self.offset_us = 0
        self.running: dict[str, Any] = {}
        self.is_retired = False  # then only its jobs are started again
        self._world = world
        self._makers: dict[str, Callable[[Machine, Process], Any]] = {}
        self._generation = 0

    def runs(self, name: str, make: Callable[["Machine", Process], Any]) -> None:
        self._makers[name] = make
        self._start(name, None)

    def _start(self, name: str, _unused: None) -> None:
        if self.is_retired and name != "jobs":
            return
        self._generation += 1
        process = Process(f"{self.name}.{name}.{self._generation}")
        process.on_death = lambda fault: self._died(name, process, fault)
        self.running[name] = self._makers[name](self, process)

    def _died(self, name: str, process: Process, fault: Fault) -> None:
        """With it the whole machine, if that is what happened."""
        dice, kernel = self._world.dice, self._world.kernel
        self.running.pop(name, None)
        kernel.after(dice.between(500_000, 5_000_000), self._start, name)
        if fault is Fault.KILL:
            return
        for other in list(self.running.values()):
            kernel.kill(other.process, Fault.KILL)
        if fault is Fault.CRASH:
            self.disk.boot += 1
            for spool in self.disk.spools.values():
                lost = spool.forget_unsynced(kernel.now_us, dice)
                self._world.laws.shortened.update(lost)
        else:
            self._world.laws.burnt.update(self.disk.spools)
            self.disk = Disk()
