"""One simulated world: built from a scenario and a seed, run under faults, then left in peace until
everything has come to rest, and judged.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from billing.usage import DECODER
from gateway.dataplane.lease_book import LeaseBook
from gateway.jobs.endings import ending
from gateway.jobs.reap_leases import LOST_MS, patience_ms
from gateway.stores.counted import Counted
from gateway.stores.redis import epochs
from gateway.stores.redis.epochs import Epoch, Guard
from tests.simulator import house
from tests.simulator.asking import Request
from tests.simulator.backend import Backend, Work
from tests.simulator.dice import Dice
from tests.simulator.jobs import Jobs, Judge
from tests.simulator.kernel import Cancelled, ClientGone, Kernel, Process, Story
from tests.simulator.laws import Laws
from tests.simulator.leasing import Bus
from tests.simulator.ledger import Ledger
from tests.simulator.machine import Machine, Surroundings
from tests.simulator.scenario import GENTLE, ON_WORLD, Fault, Scenario
from tests.simulator.store import TAG, QuotaStore, Scripts
from tests.simulator.verdict import at_rest, counted, none_lent
from tests.simulator.violation import Violation
from tests.simulator.worker import MOST_IN_A_PIECE, Worker

REST_WITHIN_US: Final = 2 * 3_600_000_000
LOOK_EVERY: Final = 256  # events, whether everything is at rest
TROUBLE_EVERY_US: Final = 5_000_000


class _OneServer:
    """The channels of a store that is one server."""

    def __init__(self, store: QuotaStore) -> None:
        self._store = store

    def of(self, _tag: str) -> QuotaStore:
        return self._store


def is_whole(store: QuotaStore, epoch: Epoch | None, least: int) -> bool:
    return epochs.is_whole(_OneServer(store), TAG, epoch, least)


class Parts(msgspec.Struct, frozen=True):
    """What decides in this world: the product's functions, or others that take their place."""

    scripts: Scripts = Scripts()
    judge: Judge = ending
    ledger: Ledger | None = None  # None: the model's own
    guard: Callable[..., Guard] = Guard
    is_whole: Callable[..., bool] = is_whole
    lease_book: Callable[..., LeaseBook] = LeaseBook
    patience_ms: Callable[..., int | None] = patience_ms


class Report(msgspec.Struct):
    """What became of one world. `numbers` are those of the faults that struck it."""

    seed: int
    scenario: Scenario
    events: int
    requests: int
    rows: int
    struck: list[tuple[str, str, int]]
    numbers: list[int]
    law: str = ""
    violation: str = ""
    request_id: str = ""


class World:
    def __init__(self, seed: int, scenario: Scenario, parts: Parts) -> None:
        self.seed, self.scenario, self._parts = seed, scenario, parts
        dice = self.dice = Dice(seed, scenario)
        midnight_us = house.MIDNIGHTS_US[dice.between(0, len(house.MIDNIGHTS_US) - 1)]
        start_us = midnight_us - dice.between(0, 240_000_000)
        kernel = self.kernel = Kernel(start_us, dice)
        book: dict[tuple[str, int], Work] = {}
        ahead = MOST_IN_A_PIECE if scenario.slice else 0
        self.laws = Laws(ahead, one_home=scenario.machines == 1)
        self.store = QuotaStore(kernel, self.laws, parts.scripts)
        self.ledger = parts.ledger or Ledger()
        self.book = book
        self.around = Surroundings(
            scenario=scenario,
            kernel=kernel,
            dice=dice,
            store=self.store,
            ledger=self.ledger,
            backends={
                id_: Backend(id_, dice, book, self.laws.worked_for) for id_ in house.BACKENDS
            },
            book=book,
            laws=self.laws,
            guard=parts.guard,
            is_whole=parts.is_whole,
            lease_book=parts.lease_book,
            patience_ms=parts.patience_ms,
            bus=Bus(kernel),
        )
        self.ledger.on_epoch = self._tell_epoch
        self.machines = [Machine(f"m{n}", self.around) for n in range(scenario.machines)]
        self.requests = 0
        self._outside = Process("outside")
        self._people(parts)

    def _people(self, parts: Parts) -> None:
        for machine in self.machines:
            for n in range(self.scenario.workers):
                machine.runs(f"w{n}", lambda m, p: Worker(self.around, m, p))
            machine.runs("jobs", lambda m, p: Jobs(self.around, m, p, parts.judge))
        for n in range(self.scenario.clients):
            self.kernel.start(self._outside, self._client(n), self.dice.bits(22))
        if any(fault in self.scenario.faults for fault in ON_WORLD):
            self.kernel.start(self._outside, self._trouble(), TROUBLE_EVERY_US)

    def run(self) -> Report:
        """Faults for `scenario.events` events, then rest. Never raises a Violation: it reports."""
        try:
            kernel, most = self.kernel, self.scenario.events
            while kernel.events < most and kernel.step():
                pass
            self._heal()
            self._rest(lambda: not any(worker.busy for worker in self._workers()))
            self._rest(self._is_whole)
            self._rest(self._all_told)
            for machine in self.machines:
                machine.is_retired = True
                for name, actor in list(machine.running.items()):
                    if name != "jobs":
                        kernel.kill(actor.process, Fault.KILL)
            self._rest(lambda: not any(machine.disk.spools for machine in self.machines))
            self._rest(lambda: not (self.store.journal or self.store.all_holds()))
            gentle = self.scenario.faults <= GENTLE
            at_rest(self.laws, self.store, self.ledger, self.book, gentle=gentle)
            counted(self.store, self.ledger, self._count())
            self.store.offset_us += LOST_MS * 1000  # whose worker is gone with its machine
            self._rest(lambda: not self.store.state.lent)
            none_lent(self.store)
        except Violation as violation:
            return self._report(violation)
        return self._report(None)

    def _heal(self) -> None:
        self.dice.quiet = True
        self._outside.alive = False
        for peer in (self.store, self.ledger):
            peer.down_until_us = peer.slow_us = 0
        for machine in self.machines:
            machine.disk.full_until_us = 0
        for worker in self._workers():
            worker.process.cut_off_until_us = 0

    def _rest(self, at_rest: Callable[[], bool]) -> None:
        """I14: within a stated time of peace nothing is left to be done."""
        until_us = self.kernel.now_us + REST_WITHIN_US
        while not at_rest():
            for _ in range(LOOK_EVERY):
                self.kernel.step()
            if self.kernel.now_us > until_us:
                raise Violation("I14", self._restless())

    def _is_whole(self) -> bool:
        return self._parts.is_whole(self.store, self.store.epoch, self.ledger.epoch)

    def _all_told(self) -> bool:
        """Whether the ledger has what the workers know that live."""
        spools = [spool for machine in self.machines for spool in machine.disk.spools.values()]
        told = {DECODER.decode(one).event_id for spool in spools for one in spool.outcomes}
        return not self.ledger.missing(told)

    def _count(self) -> list[Counted]:
        """The jobs look at every account in force; which those are."""
        jobs = self.machines[0].running["jobs"]
        task = self.kernel.start(jobs.process, jobs.counters.count())
        self._rest(lambda: task.done)
        now_us = self.kernel.now_us + self.machines[0].offset_us
        return house.accounts(house.configuration(self.scenario.budget, ""), now_us)

    def _tell_epoch(self, number: int) -> None:
        """Workers load the configuration again, within a second."""
        for worker in self._workers():
            delay_us = self.dice.between(1_000, 1_000_000)
            self.kernel.start(worker.process, worker.hears_of(number), delay_us)

    def _restless(self) -> str:
        left = {
            "epoch": str(self.store.epoch),
            "holds": len(self.store.all_holds()),
            "journal": len(self.store.journal),
            "spools": sum(len(machine.disk.spools) for machine in self.machines),
            "busy workers": sum(worker.busy for worker in self._workers()),
        }
        return f"left after {REST_WITHIN_US // 1_000_000} s of peace: {left}"

    def _workers(self) -> list[Worker]:
        return [
            actor
            for machine in self.machines
            for actor in machine.running.values()
            if isinstance(actor, Worker)
        ]

    # people outside

    def _client(self, number: int) -> Story:
        dice, key = self.dice, house.KEYS[number % len(house.KEYS)]
        while True:
            yield 1 + int(dice.random() * 2 * self.scenario.think_us)
            self.requests += 1
            wanted = dice.between(1, 1_500)
            request = Request(
                id=f"r{self.requests}",
                key=key,
                tokens=dice.between(10, 3_000),
                wanted=wanted,
                least=min(wanted, dice.between(1, 64)),
                streams=dice.bits(2) > 0,
            )
            if dice.between(1, 100) > self.scenario.keyed:
                self._begin(request)
                continue
            request = msgspec.structs.replace(request, once=request.id, body="a")
            self._begin(request)
            while dice.bits(1):  # the same again, or what its client takes for it
                yield 1 + int(10 ** (3 + 4.8 * dice.random()))
                self.requests += 1
                body = "b" if dice.one_in(8) else "a"
                self._begin(msgspec.structs.replace(request, id=f"r{self.requests}", body=body))

    def _begin(self, request: Request) -> None:
        dice, workers = self.dice, self._workers()
        if not workers:
            return
        worker = workers[dice.bits(8) % len(workers)]
        worker.begin(request)
        for fault, reason in ((Fault.HANG_UP, ClientGone()), (Fault.CANCEL, Cancelled())):
            if dice.chance(fault, "a request", 12):
                delay_us = int(10 ** (2 + 5.5 * dice.random()))
                self.kernel.after(delay_us, self._interrupt, (worker, request.id), reason)

    def _interrupt(self, who: tuple[Worker, str], reason: Exception) -> None:
        worker, request_id = who
        task = worker.interruptible.get(request_id)
        if task is not None and worker.process.alive:
            self.kernel.interrupt(task, reason)

    def _trouble(self) -> Story:
        while True:
            yield self.dice.between(1, 2 * TROUBLE_EVERY_US)
            self.store.replicate()
            yield self.dice.between(1, 2 * TROUBLE_EVERY_US)
            for fault in ON_WORLD:
                rarely = 2 if fault is Fault.CUT_OFF else 12  # the only one that all else survives
                if self.dice.chance(fault, "the world", rarely):
                    self.kernel.say(f"the world: {fault.value}", is_fault=True)
                    self._befall(fault)

    def _meanwhile(self) -> Story:
        """The store is another one when they reach it again."""
        for fault in (Fault.WIPE, Fault.FAILOVER):
            if self.dice.chance(fault, "the world", 3):
                self.kernel.say(f"the world: {fault.value}", is_fault=True)
                self._befall(fault)
        yield 0

    def _befall(self, fault: Fault) -> None:
        dice, now_us = self.dice, self.kernel.now_us
        machine = self.machines[dice.bits(8) % len(self.machines)]
        long_us = dice.between(100_000, 60_000_000)
        match fault:
            case Fault.CLOCK:
                machine.offset_us += dice.between(-120_000_000, 120_000_000)
            case Fault.STORE_CLOCK:
                self.store.offset_us += dice.between(-120_000_000, 120_000_000)
            case Fault.STORE_DOWN:
                self.store.down_until_us = now_us + long_us
            case Fault.LEDGER_DOWN:
                self.ledger.down_until_us = now_us + 3 * long_us
            case Fault.LEDGER_SLOW:
                self.ledger.slow_us = dice.bits(1) * dice.between(100_000, 4_000_000)
            case Fault.DISK_FULL:
                machine.disk.full_until_us = now_us + long_us
            case Fault.CUT_OFF:
                for worker in self._workers():
                    worker.process.cut_off_until_us = now_us + long_us * dice.bits(1)
                self.kernel.start(self._outside, self._meanwhile(), long_us // 4)
            case _:
                self._befall_store(fault)

    def _befall_store(self, fault: Fault) -> None:
        match fault:
            case Fault.WIPE:
                self.store.wipe(restarts=bool(self.dice.bits(1)))
            case Fault.FAILOVER:
                self.store.fail_over()
            case _:
                self.store.fail_back()

    def _report(self, violation: Violation | None) -> Report:
        return Report(
            seed=self.seed,
            scenario=self.scenario,
            events=self.kernel.events,
            requests=self.requests,
            rows=len(self.ledger.rows),
            struck=[(fault.value, where, n) for (fault, where), n in self.dice.struck.items()],
            numbers=self.dice.numbers,
            law="" if violation is None else violation.law,
            violation="" if violation is None else str(violation),
            request_id="" if violation is None else violation.request_id,
        )


def simulate(seed: int, scenario: Scenario, parts: Parts | None = None) -> Report:
    return World(seed, scenario, parts or Parts()).run()
