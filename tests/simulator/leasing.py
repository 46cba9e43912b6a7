"""A worker's leases on virtual time: what is due and what may be spent is decided by the product's
own LeaseBook; here is the order in which store, disk and bus are asked, as in its `leases`.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from gateway.dataplane.lease import Lease
from gateway.dataplane.lease_book import LeaseBook
from gateway.stores.lease_file import Kept
from gateway.stores.redis.epochs import Guard
from gateway.stores.spool import SpoolUnavailable
from policies.leases import Lent, TakenBack
from tests.simulator.kernel import Call, Kernel, Process, Story, Unreachable
from tests.simulator.machine import Machine, Surroundings
from tests.simulator.spools import SpoolFile
from tests.simulator.store import WrongEpoch

LOOK_EVERY_US: Final = 1_000_000
RECALL_AGAIN_US: Final = 20_000
HEARD_WITHIN_US: Final = 5_000


class Bus:
    """Whoever lives hears what is said, over connections of their own."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._ears: list[tuple[Process, Callable[[Sequence[str]], None]]] = []

    def join(self, process: Process, recalled: Callable[[Sequence[str]], None]) -> None:
        self._ears = [(who, ear) for who, ear in self._ears if who.alive]
        self._ears.append((process, recalled))

    def recall(self, account_keys: Sequence[str]) -> None:
        for process, recalled in self._ears:
            story = self._heard(recalled, account_keys)
            self._kernel.start(process, story, self._kernel.dice.between(1, HEARD_WITHIN_US))

    def _heard(self, recalled: Callable[[Sequence[str]], None], names: Sequence[str]) -> Story:
        recalled(names)
        yield 0


class Leasing:
    def __init__(
        self,
        world: Surroundings,
        process: Process,
        machine: Machine,
        spool: SpoolFile,
        guard: Guard,
    ) -> None:
        self._kernel = world.kernel
        self._store = world.store
        self._bus = world.bus
        self._process = process
        self._machine = machine
        self._spool = spool
        self._guard = guard
        scenario = world.scenario
        self.book: LeaseBook = world.lease_book(
            spool.name,
            lambda _: guard.known,
            lambda _, epoch: guard.is_over(epoch),
            seconds=scenario.lease_seconds if scenario.outage == "bounded" else 0,
            workers=scenario.workers,
        )
        if self.book.is_open:
            world.bus.join(process, self.recalled)
            world.kernel.start(process, self._keep(), LOOK_EVERY_US)

    def _keep(self) -> Story:
        while True:
            yield from self._look()
            yield LOOK_EVERY_US

    def _look(self) -> Any:
        book, granted = self.book, []
        due = book.due(self._kernel.now_us)
        if due:
            yield from self._at("leases.asked")
        for lease, ask in due:
            try:
                answer = yield from self._lent(ask)
            except Unreachable:
                book.unanswered(lease)
            else:
                granted.append((lease, answer))
        if granted:
            yield from self._at("leases.granted")
        if self._is_written(book.kept(granted)):
            if granted:
                yield from self._at("leases.written")
            for lease, lent in granted:
                book.answered(lease, lent)
        else:
            for lease, _ in granted:
                book.unwritten(lease)
        yield from self._give_back()
        self._is_written(book.kept(()))

    def _lent(self, ask: Any) -> Any:
        """As a lane with a guard: once more with the epoch that the store has."""
        for _ in range(2):
            answer = yield Call(self._store, "lend", self._store.lend, self._guard.token, ask)
            if isinstance(answer, Lent):
                return answer
            if not isinstance(answer, WrongEpoch) or not self._guard.told(answer.text):
                break
        raise Unreachable(sent=False)

    def _is_written(self, due: Sequence[Kept]) -> bool:
        try:
            self._machine.disk.keep(self._spool, due, self._kernel.now_us)
        except SpoolUnavailable:
            return False
        return True

    def _give_back(self) -> Any:
        gone = set()
        for lease in self.book.over():
            with contextlib.suppress(Unreachable):
                yield self._taking_back(lease)
                gone.add(lease)
        if gone:
            yield from self._at("leases.given_back")
        self.book.gone(gone)

    def _taking_back(self, lease: Lease) -> Call:
        back = TakenBack(lease.id, lease.account.key)
        return Call(self._store, "take_back", self._store.take_back, back)

    def recalled(self, account_keys: Sequence[str]) -> None:
        """Somebody needs this money for a request."""
        for lease in self.book.recalled(account_keys, self._kernel.now_us):
            self._kernel.post(self._process, self._taking_back(lease), lambda _: None)

    def recall(self, account_keys: Iterable[str], tries: int) -> Any:
        """Whether to try once more without."""
        names = list(account_keys)
        if not self.book.waits_for(names, tries, self._kernel.now_us):
            return False
        if tries == 0:
            self.recalled(names)
            said = Call(self._store, "bus.recall", partial(self._bus.recall, names))
            self._kernel.post(self._process, said, lambda _: None)
            yield from self._at("leases.recalled")
        yield RECALL_AGAIN_US
        return True

    def _at(self, step: str) -> Any:
        if pause_us := self._kernel.at(step, self._process):
            yield pause_us
