"""One scarce backend and several workers in virtual time: the desks as they are, the store as its
model. Nothing waits for a real clock, so that minutes of load take a second.
"""

import heapq
import itertools
from collections.abc import Callable
from random import Random

import msgspec

from gateway.dataplane.desk import Desk, Turn
from policies.fair_queue import Line
from policies.slot_leases import Crew, share

SECOND_US = 1_000_000
BEGAN_US = 10 * SECOND_US
BACKEND = "bk_1"


class Request:
    """One request, and what became of it. Times in microseconds; -1: did not happen."""

    __slots__ = ("cost", "ended_us", "line", "service_us", "since_us", "started_us", "team",
                 "tokens", "weight", "worker")  # fmt: skip

    def __init__(
        self, worker: "Worker", load: "Load", line: Line, tokens: int, cost: int, service_us: int
    ) -> None:
        self.worker = worker
        self.team = load.team
        self.weight = load.weight
        self.line = line
        self.tokens = tokens  # as was thought
        self.cost = cost  # as it turned out
        self.service_us = service_us
        self.since_us = worker.world.now_us
        self.started_us = -1
        self.ended_us = -1

    @property
    def waited_us(self) -> int:
        return self.started_us - self.since_us

    def seated(self, turn: Turn) -> None:
        world = self.worker.world
        self.started_us = world.now_us
        world.at_work.add(self)
        world.peak = max(world.peak, len(world.at_work))
        world.after(self.service_us, lambda: self._end(turn))

    def _end(self, turn: Turn) -> None:
        world = self.worker.world
        if self in world.at_work:
            world.at_work.discard(self)
            world.busy_us += world.now_us - self.started_us
            self.ended_us = world.now_us
        if self.worker.alive:
            turn.over(self.cost)


class Worker:
    """A desk, and the loop that asks the store for it."""

    def __init__(self, world: "World", number: int, of: int) -> None:
        self.world = world
        self.alive = True
        self.name = f"data-{number}"
        self.desk = Desk(
            BACKEND, self.name, (number, of), self._wake,
            lambda s, then: world.after(int(s * SECOND_US), then), lambda: world.now_us,
        )  # fmt: skip
        self.desk.capacity = world.capacity
        self._awake = False

    def arrive(self, request: Request, most: int = 10**9) -> None:
        """As `Turns` does it."""
        desk = self.desk
        if not self.alive:
            return
        turn = desk.take(request.line, request.tokens, request.weight)
        if turn is not None:
            request.seated(turn)
            return
        if len(desk.queue) >= most:
            worse = desk.queue.evicted_for(request.line)
            if worse is None:
                return
            desk.leave(worse[1])
        desk.join(request)

    def dies(self) -> None:
        """Its connections close, and the backend stops."""
        self.alive = False
        for request in [one for one in self.world.at_work if one.worker is self]:
            self.world.at_work.discard(request)

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self.world.after(0, self._turn)

    def _turn(self) -> None:
        self._awake = False
        if not self.alive:
            return
        due_us = self.desk.due_us()
        if due_us > self.world.now_us:
            self.world.after(due_us - self.world.now_us, self._look)
            return
        self.world.ask(self)

    def _look(self) -> None:
        if not self._awake:
            self._turn()


class World:
    """`seed` decides every delay."""

    def __init__(self, capacity: int, workers: int, seed: int = 0) -> None:
        self.capacity = capacity
        self.now_us = BEGAN_US
        self.random = Random(seed)
        self.at_work: set[Request] = set()
        self.peak = 0
        self.busy_us = 0
        self.steps = 0
        self.store_up = True
        self.idle_while_waiting_us = 0
        self._crew = Crew()
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.workers = [Worker(self, number, workers) for number in range(workers)]

    def after(self, delay_us: int, then: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_us + delay_us, next(self._numbers), then))

    def ask(self, worker: Worker) -> None:
        """One step of the store, there and back."""
        asked = worker.desk.asks()
        self.steps += 1

        def at_the_store() -> None:
            if not self.store_up:
                self.after(SECOND_US // 10, unheard)
                return
            self._crew, shared = share(self._crew, asked, self.now_us)

            def back() -> None:
                if worker.alive and worker.desk.told(asked, shared):
                    for other in self.workers:
                        self.after(self._delay_us(), other.desk.nudged)

            self.after(self._delay_us(), back)

        def unheard() -> None:
            if worker.alive:
                worker.desk.unheard()

        self.after(self._delay_us(), at_the_store)

    def run(self, until_us: int) -> None:
        """Everything up to this time, which is counted from the beginning."""
        end_us = BEGAN_US + until_us
        while self._events and self._events[0][0] <= end_us:
            at_us, _, then = heapq.heappop(self._events)
            if len(self.at_work) < self.capacity and any(
                worker.alive and worker.desk.queue for worker in self.workers
            ):
                free = self.capacity - len(self.at_work)
                waiting = sum(len(worker.desk.queue) for worker in self.workers if worker.alive)
                self.idle_while_waiting_us += (at_us - self.now_us) * min(free, waiting)
            self.now_us = at_us
            then()
        self.now_us = end_us

    def _delay_us(self) -> int:
        return self.random.randrange(100, 500)


class Load(msgspec.Struct, frozen=True):
    """Requests of one team, at random moments, to workers at random, or all `at` one of them."""

    team: str
    a_second: float
    input_tokens: int
    output_tokens: int
    service_ms: int
    priority: int = 9
    weight: int = 1
    at: int | None = None


def pour(world: World, load: Load, seconds: float, *, most: int, fifo: bool) -> list[Request]:
    """Schedules a load; the requests, filled in as the world goes on. `fifo`: all in one line."""
    requests: list[Request] = []
    random = Random(world.random.random())
    at_us = 0.0

    def one() -> None:
        share_of = random.uniform(0.5, 1.5)
        output = max(1, int(load.output_tokens * share_of))
        line = (load.priority, "everybody" if fifo else load.team)
        request = Request(
            random.choice(world.workers) if load.at is None else world.workers[load.at],
            load,
            line,
            load.input_tokens + 2 * load.output_tokens,
            load.input_tokens + 2 * output,
            int(load.service_ms * 1000 * share_of),
        )
        requests.append(request)
        request.worker.arrive(request, most)

    while (at_us := at_us + random.expovariate(load.a_second) * SECOND_US) < seconds * SECOND_US:
        world.after(int(at_us), one)
    return requests
