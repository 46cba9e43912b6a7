"""How a worker is let in: by the store, under the epoch that it knows; by itself where the store
does not answer and every budget on the path is `open`. As gateway/dataplane/admit.py and outage.py.
"""

from functools import partial
from typing import Any, Final

import msgspec

from billing.usage import ENCODER
from gateway.dataplane.events import template
from gateway.dataplane.flow import Flow
from gateway.stores.redis.epochs import Guard
from gateway.stores.spool import Closed, Intent, SpoolUnavailable
from policies.budgets import Admission, Granted, Refused
from tests.simulator.kernel import Call, Process, Story, Unreachable
from tests.simulator.leasing import Leasing
from tests.simulator.machine import Machine, Surroundings
from tests.simulator.spools import SpoolFile
from tests.simulator.store import WrongEpoch
from tests.simulator.upkeep import TTL_MS, Upkeep

OLD_GRANT_US: Final = TTL_MS * 667
UNSURE_US: Final = 400_000
PATIENCE_US: Final = 1_000_000
STALE_TRIES: Final = 3
OPEN_TRIES: Final = 20
OPEN_AGAIN_US: Final = 50_000
HEAR_AGAIN_US: Final = 500_000


class _Line:
    """As one worker has it: of which process of the store it knows."""

    def __init__(self, world: Surroundings, process: Process) -> None:
        self._kernel = world.kernel
        self._store = world.store
        self._process = process

    @property
    def run_id(self) -> str:
        store, kernel = self._store, self._kernel
        away = store.down_until_us > kernel.now_us or kernel.is_cut_off(self._process, store)
        return "" if away else store.run_id

    @property
    def since_us(self) -> int:
        return self._store.since_us


class Door:
    """One worker's."""

    def __init__(
        self, world: Surroundings, process: Process, machine: Machine, spool: SpoolFile
    ) -> None:
        self._world = world
        self._kernel = world.kernel
        self._store = world.store
        self._process = process
        self._machine = machine
        self._spool = spool
        line, now_us = _Line(world, process), world.kernel.now_us
        self.guard: Guard = world.guard(line, world.ledger.epoch, now_us)
        self._hearing = False
        self.upkeep = Upkeep(world.kernel, world.store, process)
        self.leasing = Leasing(world, process, machine, spool, self.guard)

    def admit(self, flow: Flow) -> Any:
        """Whether it is let in, or the Refused that says why not."""
        arrival, levels = flow.arrival, flow.levels
        flow.admit_started_us = began_us = self._now_us(flow)
        flow.standing = levels.at(began_us)
        meta = self._meta(flow)
        if pause_us := self._kernel.at("admit.begins", self._process):
            yield pause_us
        try:
            answer = yield from self._asked(flow, meta)
            if isinstance(answer, Refused):
                answer, meta = yield from self._asked_again(flow, answer, meta)
        except Unreachable:
            return (yield from self._by_itself(flow))
        if not isinstance(answer, Granted):
            return answer if isinstance(answer, Refused) else False
        flow.granted = answer
        self.upkeep.in_flight.add(arrival.request_id)
        if flow.standing.leased:
            self.leasing.book.note(levels.tag, flow.standing, answer.held_money)
        if pause_us := self._kernel.at("admit.granted", self._process):
            yield pause_us
        try:
            self._write(Intent(arrival.request_id, levels.tag, answer.now_ms * 1000, meta))
        except SpoolUnavailable:
            self._give_back(flow)
            return False
        if pause_us := self._kernel.at("admit.intended", self._process):
            yield pause_us
        took_us = self._now_us(flow) - began_us
        if took_us > OLD_GRANT_US or (took_us > UNSURE_US and not (yield from self._there(flow))):
            self.close(arrival.request_id)
            self._give_back(flow)
            return False
        return True

    def with_epoch(self, make: Any) -> Any:
        """The answer to a call that bears the epoch we know, once more with the one that is."""
        for _ in range(2):
            answer = yield make(self.guard.token)
            if not isinstance(answer, WrongEpoch):
                return answer
            if not self.guard.told(answer.text):
                break
        if self.guard.doubts and not self._hearing:
            self._hearing = True
            self._kernel.start(self._process, self._hear())
        raise Unreachable(sent=False)

    def _hear(self) -> Story:
        """What epochs the ledger remembers, now that we talk to another process."""
        while self.guard.doubts:
            asked_us, ledger = self._kernel.now_us, self._world.ledger
            try:
                number = yield Call(ledger, "ledger.epochs", ledger.remembered)
                self.guard.at_least(number, asked_us)
            except Unreachable:
                yield HEAR_AGAIN_US
        self._hearing = False

    def close(self, hold_id: str) -> None:
        """Nothing of it was sent; a full disk has room for that."""
        disk, now_us = self._machine.disk, self._kernel.now_us
        try:
            disk.write(self._spool, Closed(hold_id), now_us, reserved=True)
        except SpoolUnavailable:
            self._world.laws.unwritten.add(hold_id)

    def _asked(self, flow: Flow, meta: bytes, *, firm: bool = False) -> Any:
        ask = self._admission(flow, meta, firm=firm)
        answer = yield from self.with_epoch(
            lambda token: Call(
                self._store,
                "admit",
                self._store.admit,
                token,
                ask,
                patience_us=PATIENCE_US,
                repeatable=False,
                on_loss=partial(self.upkeep.unclaimed, ask),
            )
        )
        return answer

    def _asked_again(self, flow: Flow, answer: Any, meta: bytes) -> Any:
        stale = waits = recalls = 0
        firm = False
        while isinstance(answer, Refused):
            if answer.reason == "stale_window" and stale < STALE_TRIES:
                stale += 1
                flow.admit_started_us = answer.now_ms * 1000
                flow.standing = flow.levels.refresh(flow.admit_started_us)
                meta = self._meta(flow)
            elif answer.reason == "unopened" and waits < OPEN_TRIES:
                waits += 1
                need = Call(self._store, "unopened", self._store.need_account)
                self._kernel.post(self._process, need, lambda _: None)
                yield OPEN_AGAIN_US
            elif answer.reason == "leased" and not firm:
                names = [account.key for account in flow.standing.accounts]
                firm = not (yield from self.leasing.recall(names, recalls))
                recalls += 1
            else:
                break
            answer = yield from self._asked(flow, meta, firm=firm)
        return answer, meta

    def _there(self, flow: Flow) -> Any:
        """A grant that took its time may be of a store that has lost it since."""
        ids = (flow.arrival.request_id,)
        try:
            absent = yield Call(self._store, "extend", self._store.extend, ids, TTL_MS)
        except Unreachable:
            return False
        return not absent

    def _by_itself(self, flow: Flow) -> Any:
        if flow.levels.outage == "strict" or flow.ticket is not None:
            return False
        spend = None
        if flow.levels.outage == "bounded":
            book = self.leasing.book
            spend = book.spend(flow.standing, flow.quote, self._kernel.now_us)
            if spend is None:
                return False
        now_ms, request_id = flow.admit_started_us // 1000, flow.arrival.request_id
        accounts = flow.standing.accounts
        meta = ENCODER.encode(flow.template)
        ids = spend.ids if spend is not None else ()
        try:
            self._write(Intent(request_id, flow.levels.tag, now_ms * 1000, meta, accounts, ids))
        except SpoolUnavailable:
            if spend is not None:
                spend.undo()
            return False
        flow.quote = msgspec.structs.replace(flow.quote, first=flow.quote.wanted)
        flow.granted = Granted(flow.quote.wanted, 0, now_ms, (), (), duplicate=False)
        flow.unheld, flow.spend = accounts, spend
        self._world.laws.let_in(request_id, accounts, self._spool.name)
        if spend is not None:
            state = self._store.state
            self._world.laws.spends(state, request_id, spend.ids, spend.money, self._process)
        if pause_us := self._kernel.at("outage.intended", self._process):
            yield pause_us
        self._kernel.say(f"{self._process.name}: {request_id} is served without a hold")
        return True

    def _give_back(self, flow: Flow) -> None:
        flow.granted = None
        self.upkeep.in_flight.discard(flow.arrival.request_id)
        self.upkeep.owe(flow.arrival.request_id, ())

    def _meta(self, flow: Flow) -> bytes:
        flow.template = template(flow)
        return ENCODER.encode(flow.template)

    def _admission(self, flow: Flow, meta: bytes, *, firm: bool) -> Admission:
        levels, terms = flow.levels, flow.quote
        return Admission(
            hold_id=flow.arrival.request_id,
            ttl_ms=TTL_MS,
            input_money=terms.worst.input_nanos,
            output_money=terms.worst.output_nanos_per_token,
            input_tokens=flow.ask.input_estimate,
            wanted=terms.first,
            least=terms.least,
            choices=terms.choices,
            gates=levels.gates(flow.estimated_tokens),
            slots=levels.slots,
            accounts=flow.standing.accounts,
            meta=meta,
            owner=self._spool.name,
            ticket=flow.ticket,
            firm=firm,
        )

    def _now_us(self, flow: Flow) -> int:
        return self._kernel.now_us + flow.arrival.clock_offset_ns // 1000

    def _write(self, record: Any) -> None:
        self._machine.disk.write(self._spool, record, self._kernel.now_us, reserved=False)
