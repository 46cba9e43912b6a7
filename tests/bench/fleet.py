"""Backends and requests in virtual time: to compare ways of choosing on one and the same trace.

A machine has so many slots; who finds none free waits in line. Time to first token is that wait and
a draw around the machine's own speed; then tokens follow evenly, and the slot is free again.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

SECOND = 1_000_000


class Machine(msgspec.Struct):
    """One backend. `slow(now_us)` multiplies its time to first token; `dead(now_us)` refuses."""

    name: str
    ttft_us: int
    slots: int = 16
    price: int = 1
    slow: Callable[[int], int] = lambda _: 1
    dead: Callable[[int], bool] = lambda _: False
    busy: int = 0
    line: deque["Request"] = msgspec.field(default_factory=deque)


class Request(msgspec.Struct):
    number: int
    at_us: int
    prompt: int
    output: int
    noise: float  # of the machine's own time
    place: int = -1
    ttft_us: int | None = None
    failed: list[tuple[int, int]] = msgspec.field(default_factory=list)  # (machine, when)


class Chooser(Protocol):
    """A way of choosing. Machines go by their number; the best comes first."""

    def order(self, request: Request, now_us: int) -> list[int]: ...

    def began(self, request: Request, at: int, now_us: int) -> None: ...

    def first_byte(self, request: Request, now_us: int) -> None: ...

    def ended(self, request: Request, now_us: int, *, served: bool) -> None: ...


def trace(seed: int, seconds: int, per_second: float) -> Iterator[Request]:
    """Arrivals as they come, by chance and independent of each other."""
    drawn, at_us, number = random.Random(seed), 0.0, 0
    while True:
        at_us += drawn.expovariate(per_second) * SECOND
        if at_us >= seconds * SECOND:
            return
        yield Request(
            number,
            int(at_us),
            prompt=drawn.randrange(50, 800),
            output=drawn.randrange(16, 96),
            noise=drawn.lognormvariate(0, 0.3),
        )
        number += 1


class Fleet:
    """Runs a trace against machines by one way of choosing."""

    TPOT_US = 15_000

    def __init__(self, machines: list[Machine], chooser: Chooser) -> None:
        self.machines = machines
        self.chooser = chooser
        self._due: list[tuple[int, int, Callable[[int], None]]] = []
        self._sequence = 0

    def run(self, requests: Iterator[Request]) -> list[Request]:
        """All of them, each with where it went and when its first token came."""
        done = list(requests)
        for request in done:
            self._at(request.at_us, lambda now_us, one=request: self._arrives(one, now_us))
        while self._due:
            now_us, _, act = heapq.heappop(self._due)
            act(now_us)
        return done

    def _at(self, at_us: int, act: Callable[[int], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._due, (at_us, self._sequence, act))

    def _arrives(self, request: Request, now_us: int) -> None:
        for at in self.chooser.order(request, now_us)[:2]:
            machine = self.machines[at]
            request.place = at
            self.chooser.began(request, at, now_us)
            if machine.dead(now_us):
                request.failed.append((at, now_us))
                self.chooser.ended(request, now_us, served=False)
                continue
            machine.line.append(request)
            self._serve(machine, now_us)
            return

    def _serve(self, machine: Machine, now_us: int) -> None:
        while machine.line and machine.busy < machine.slots:
            request = machine.line.popleft()
            machine.busy += 1
            own_us = int(machine.ttft_us * machine.slow(now_us) * request.noise)
            first_us = now_us + own_us
            self._at(first_us, lambda at_us, one=request: self._speaks(one, at_us))
            end_us = first_us + self.TPOT_US * request.output
            self._at(end_us, lambda at_us, one=request: self._ends(machine, one, at_us))

    def _speaks(self, request: Request, now_us: int) -> None:
        request.ttft_us = now_us - request.at_us
        self.chooser.first_byte(request, now_us)

    def _ends(self, machine: Machine, request: Request, now_us: int) -> None:
        machine.busy -= 1
        self.chooser.ended(request, now_us, served=True)
        self._serve(machine, now_us)
