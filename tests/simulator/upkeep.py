"""What a worker does beside serving: its holds kept alive, settlements sent until the store has
confirmed them, releases owed until they are paid. As gateway/dataplane/upkeep.py, settle.py and
gateway/stores/redis/holds.py do.
"""

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Final

from gateway.dataplane.lease import Spend
from policies.budgets import Admission, Granted, Refused, Settlement
from tests.simulator.kernel import Call, Kernel, Process, Story, Unreachable
from tests.simulator.store import QuotaStore

TTL_MS: Final = 30_000
EXTEND_EVERY_US: Final = 8_000_000
AGAIN_US: Final = 500_000

Corrections = Sequence[tuple[str, int]]


class Upkeep:
    def __init__(self, kernel: Kernel, store: QuotaStore, process: Process) -> None:
        self._kernel = kernel
        self._store = store
        self._process = process
        self.in_flight: set[str] = set()  # holds to keep alive
        self._owed: dict[str, Corrections] = {}
        self._waiting: list[Settlement] = []
        self._spends: dict[str, Spend] = {}  # of leases, by request
        self._catching_up = False
        kernel.start(process, self._keep_holds_alive(), EXTEND_EVERY_US)

    @property
    def busy(self) -> bool:
        return bool(self.in_flight or self._owed or self._waiting)

    def settle(self, done: Settlement, spend: Spend | None) -> None:
        """On its way when this returns; the spool has it on disk already. `spend` paid for it."""
        if spend is not None:
            self._spends[done.hold_id] = spend
        self._kernel.post(self._process, self._settling(done), partial(self._settled, done))

    def owe(self, hold_id: str, corrections: Corrections) -> None:
        """Release a hold; the release is owed until the store has confirmed it."""
        self._owed[hold_id] = corrections
        self._kernel.post(self._process, self._releasing(hold_id), partial(self._paid, hold_id))

    def unclaimed(self, ask: Admission, answer: Granted | Refused | None) -> None:
        """Nobody waits for this admission any more; None: the store may or may not have it."""
        if not isinstance(answer, Refused):
            self.owe(
                ask.hold_id, tuple((g.key, -g.advance_us) for g in ask.gates if g.kind == "tpm")
            )

    def _settling(self, done: Settlement) -> Call:
        return Call(self._store, "settle", self._store.settle, done)

    def _settled(self, done: Settlement, answer: bool | None) -> None:
        self._kernel.at("settle.answered", self._process)
        self.in_flight.discard(done.hold_id)
        if answer is None:
            self._waiting.append(done)
            self._catch_up()
        else:
            self._confirmed(done)

    def _confirmed(self, done: Settlement) -> None:
        spend = self._spends.pop(done.hold_id, None)
        if spend is not None:
            spend.settled()

    def _releasing(self, hold_id: str) -> Call:
        corrections = self._owed.get(hold_id, ())
        return Call(self._store, "release", self._store.release, hold_id, corrections)

    def _paid(self, hold_id: str, answer: bool | None) -> None:
        if answer is not None:
            self._owed.pop(hold_id, None)
        elif hold_id in self._owed:
            self._catch_up()

    def _catch_up(self) -> None:
        if not self._catching_up:
            self._catching_up = True
            self._kernel.start(self._process, self._send_again(), AGAIN_US)

    def _send_again(self) -> Story:
        while self._waiting or self._owed:
            try:
                if self._waiting:
                    first = self._waiting[0]
                    yield self._settling(first)
                    self._waiting.remove(first)
                    self._confirmed(first)
                    continue
                hold_id = next(iter(self._owed))
                yield self._releasing(hold_id)
                self._owed.pop(hold_id, None)
            except Unreachable:
                yield AGAIN_US
        self._catching_up = False

    def _keep_holds_alive(self) -> Story:
        while True:
            if self.in_flight:
                if pause_us := self._kernel.at("upkeep.extends", self._process):
                    yield pause_us
                ids = tuple(sorted(self.in_flight))
                with contextlib.suppress(Unreachable):
                    yield Call(self._store, "extend", self._store.extend, ids, TTL_MS)
            yield EXTEND_EVERY_US
