"""Chance, in two streams of one seed: what the world does anyway, and which faults strike it.

Leaving a fault out therefore draws no number differently until the history itself takes another
turn. Every fault that strikes has a number and is counted with the place where it struck.
"""

from collections import Counter
from random import Random
from typing import Final

from tests.simulator.scenario import ON_MESSAGES, ON_STEPS, Fault, Scenario

_STEP_WEIGHTS: Final = {Fault.KILL: 8, Fault.STOP: 4, Fault.CRASH: 2, Fault.BURN: 1}


class Dice:
    def __init__(self, seed: int, scenario: Scenario) -> None:
        self._world = Random(f"world {seed}")
        self._faults = Random(f"faults {seed}")
        self._allowed = scenario.allowed
        self._on_messages = [fault for fault in ON_MESSAGES if fault in scenario.faults]
        self._on_steps = [fault for fault in ON_STEPS if fault in scenario.faults]
        self._weights = [_STEP_WEIGHTS[fault] for fault in self._on_steps]
        self._faulty = scenario.faults
        self._per_message = scenario.per_mille / 1_000 if self._on_messages else 0.0
        self._steps_apart = scenario.steps_apart
        self._until_step = self._gap() if self._on_steps else 1 << 60
        self.quiet = False  # no more faults: everything has to come to rest
        self.struck: Counter[tuple[Fault, str]] = Counter()
        self.numbers: list[int] = []  # of the faults that struck
        self._drawn = 0
        self.random = self._world.random
        self.bits = self._world.getrandbits

    def between(self, low: int, high: int) -> int:
        return low + int(self.random() * (high - low + 1))

    def latency_us(self) -> int:
        return 200 + self.bits(11)

    def one_in(self, n: int) -> bool:
        return self.random() * n < 1

    def next_step(self) -> bool:
        """Whether this step goes unharmed."""
        self._until_step -= 1
        return self._until_step > 0

    def step_fault(self, step: str) -> Fault | None:
        self._until_step = self._gap()
        return self.strikes(self._faults.choices(self._on_steps, self._weights)[0], step)

    def message_is_hit(self) -> bool:
        return self._faults.random() < self._per_message

    def message_fault(self, name: str) -> Fault | None:
        return self.strikes(self._faults.choice(self._on_messages), name)

    def chance(self, fault: Fault, where: str, one_in: int) -> bool:
        """Whether this fault strikes here, once in so many times."""
        if fault not in self._faulty or self._faults.random() * one_in >= 1:
            return False
        return self.strikes(fault, where) is not None

    def strikes(self, fault: Fault, where: str) -> Fault | None:
        """The fault, unless it is one of those that are left out."""
        if self.quiet:
            return None
        self._drawn += 1
        if self._allowed is not None and self._drawn not in self._allowed:
            return None
        self.numbers.append(self._drawn)
        self.struck[fault, where] += 1
        return fault

    def _gap(self) -> int:
        return 1 + int(self._faults.random() * 2 * self._steps_apart)
