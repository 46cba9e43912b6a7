"""The jobs of one machine: drain, replay, reap and prune, each under the product's rules.

What a spool proves, how an overdue hold ends and what may be deleted is decided by the product's
own functions; here is only the order in which store, ledger and disk are asked.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from billing.usage import DECODER
from gateway.jobs.endings import Ending, settlement
from gateway.jobs.evidence import Findings
from gateway.jobs.reap_leases import LATE_MS as LEASES_LATE_MS
from gateway.jobs.reap_leases import LOST_MS
from gateway.jobs.replay_spool import SEND_AGAIN_US, handed_in, unsent
from gateway.jobs.traces import Traces, told
from gateway.stores.redis import keys
from gateway.stores.spooled import acknowledged
from gateway.stores.sql.corrections import is_weak
from policies.budgets import Hold, Reaping
from policies.leases import TakenBack
from tests.simulator.counting import LOOK_EVERY_US, Counters
from tests.simulator.evidence import findings
from tests.simulator.journal import Entry
from tests.simulator.kernel import Call, Process, Story, Unreachable
from tests.simulator.machine import Machine, Surroundings
from tests.simulator.spools import SpoolFile
from tests.simulator.store import TAG
from tests.simulator.upkeep import TTL_MS

LATE_MS: Final = TTL_MS // 2
REAP_EVERY_US: Final = 5_000_000
REAP_LEASES_EVERY_US: Final = 10_000_000
REPLAY_EVERY_US: Final = 2_000_000
PRUNE_EVERY_US: Final = 15_000_000
TELL_EVERY_US: Final = 30_000_000
DRAIN_PAUSE_US: Final = 500_000
TURN_US: Final = 4_000_000
DRAIN_LEASE_MS: Final = 8_000
REAP_LEASE_MS: Final = 20_000
BACK_OFF_US: Final = 2_000_000
MOST_ENTRIES: Final = 200

Judge = Callable[[Hold, Traces, Mapping[str, tuple[int, int]]], Ending | None]


class Jobs:
    def __init__(
        self, world: Surroundings, machine: Machine, process: Process, judge: Judge
    ) -> None:
        self._kernel = world.kernel
        self._store = world.store
        self._ledger = world.ledger
        self._machine = machine
        self._judge = judge
        self._patience_ms = world.patience_ms
        self.process = process
        self._sent: dict[str, dict[str, int]] = {}
        self._tokens = 0
        self.counters = Counters(world, machine, process)
        for turn, every_us in (
            (self._drain, DRAIN_PAUSE_US),
            (self.counters.turn, LOOK_EVERY_US),
            (self._replay, REPLAY_EVERY_US),
            (self._reap, REAP_EVERY_US),
            (self._reap_leases, REAP_LEASES_EVERY_US),
            (self._prune, PRUNE_EVERY_US),
            (self.counters.tell_again, TELL_EVERY_US),
        ):
            world.kernel.start(process, self._keep(turn, every_us), world.dice.bits(20))

    def _keep(self, turn: Callable[[], Any], every_us: int) -> Story:
        while True:
            try:
                yield from turn()
            except Unreachable:
                yield BACK_OFF_US
            yield every_us

    # journal -> ledger

    def _drain(self) -> Any:
        token = self._token()
        lease = f"drain:{TAG}"
        if (yield self._ask("lease.read", "has_lease", f"still:{TAG}")):
            return
        if not (yield self._ask("lease.take", "take_lease", lease, token, DRAIN_LEASE_MS)):
            return
        try:
            yield from self._drain_for_a_turn()
        except Unreachable:
            yield from self._return_lease(lease, token)
            raise
        yield from self._return_lease(lease, token)

    def _drain_for_a_turn(self) -> Any:
        name = self.process.name
        while orphans := (yield self._ask("journal.reclaim", "reclaim", name, MOST_ENTRIES)):
            yield from self._book(orphans)
        end_us = self._kernel.now_us + TURN_US
        while self._kernel.now_us < end_us:
            if (yield self._ask("lease.read", "has_lease", f"still:{TAG}")):
                return
            entries = yield self._ask("journal.take", "take", name, MOST_ENTRIES)
            if entries:
                yield from self._book(entries)
            yield DRAIN_PAUSE_US

    def _book(self, entries: Sequence[Entry]) -> Any:
        if pause_us := self._kernel.at("drain.taken", self.process):
            yield pause_us
        delivered = [(DECODER.decode(entry.event), entry.hold_found) for entry in entries]
        yield Call(self._ledger, "ledger.record", self._ledger.record, delivered)
        if pause_us := self._kernel.at("drain.booked", self.process):
            yield pause_us
        yield self._ask("journal.done", "done", [entry.id for entry in entries])
        if pause_us := self._kernel.at("drain.done", self.process):
            yield pause_us

    # spools of the dead -> journal

    def _replay(self) -> Any:
        spools = self._machine.disk.spools
        for name, spool in list(spools.items()):
            if spool.is_locked or name not in spools:
                continue
            spool.holder = self.process
            try:
                yield from self._replay_one(spool)
            except Unreachable:
                spool.holder = _NOBODY
                raise
            spool.holder = _NOBODY
        for gone in self._sent.keys() - spools.keys():
            del self._sent[gone]

    def _replay_one(self, spool: SpoolFile) -> Any:
        if pause_us := self._kernel.at("replay.adopted", self.process):
            yield pause_us
        found: Findings = yield Call(
            self._ledger, "ledger.missing", self._findings, spool, repeatable=False
        )
        sent = self._sent.setdefault(spool.name, {})
        for _, hold_id in found.untouched:
            if hold_id not in sent:
                yield self._ask("release", "release", hold_id, ())
                sent[hold_id] = self._kernel.now_us
        yield from self._release_strays(spool)
        holds = yield self._ask("holds.read", "all_holds")
        waiting = [
            event
            for event in found.events
            if not is_weak(event) or event.request_id in holds or event.request_id in found.unheld
        ]
        if not waiting:
            yield from self._end_leases(spool)
            if pause_us := self._kernel.at("replay.booked", self.process):
                yield pause_us
            self._machine.disk.spools.pop(spool.name, None)
            return
        for event in waiting:
            if self._kernel.now_us - sent.get(event.event_id, -SEND_AGAIN_US) >= SEND_AGAIN_US:
                yield self._ask("settle", "settle", handed_in(event, found))
                sent[event.event_id] = self._kernel.now_us
                if pause_us := self._kernel.at("replay.handed_in", self.process):
                    yield pause_us

    def _end_leases(self, spool: SpoolFile) -> Any:
        for one in (yield self._ask("leases.read", "listed")):
            if one.owner == spool.name:
                yield self._take_back(TakenBack(one.lease_id, one.account))

    def _findings(self, spool: SpoolFile) -> Findings:
        return findings(self._ledger, self._machine.disk, spool)

    def _release_strays(self, spool: SpoolFile) -> Any:
        """Holds of this writer that led to nothing."""
        holds = yield self._ask("holds.read", "all_holds")
        owned = [id_ for id_, hold in holds.items() if hold.admission.owner == spool.name]
        if not owned:
            return
        known = yield Call(self._ledger, "ledger.ended", self._ledger.ended, owned, ())
        proves = self._machine.disk.proves_absence(spool)
        for hold_id in sorted(unsent(spool.records, owned, known, proves_absence=proves)):
            yield self._ask("release", "release", hold_id, ())

    # holds that nobody keeps alive

    def _reap(self) -> Any:
        overdue = yield self._ask("holds.overdue", "overdue", LATE_MS)
        if not overdue:
            return
        token, name = self._token(), keys.lease(f"reap:{{{TAG}}}")
        if not (yield self._ask("lease.take", "take_lease", name, token, REAP_LEASE_MS)):
            return
        try:
            yield from self._end(overdue, Reaping(LATE_MS, name, token))
        except Unreachable:
            yield from self._return_lease(name, token)
            raise
        yield from self._return_lease(name, token)

    def _end(self, overdue: Sequence[str], reaping: Reaping) -> Any:
        if pause_us := self._kernel.at("reap.leased", self.process):
            yield pause_us
        holds = yield self._ask("holds.read", "holds", overdue)
        seen = self._traces(holds)
        packed = yield self._ask("journal.read", "journaled", None)
        events = [DECODER.decode(each) for each in packed]
        journaled = [event for event in events if event.request_id in holds]
        booked = yield Call(
            self._ledger, "ledger.ended", self._ledger.ended, list(holds), journaled
        )
        endings = {id_: self._judge(hold, seen, booked) for id_, hold in holds.items()}
        if pause_us := self._kernel.at("reap.decided", self.process):
            yield pause_us
        for hold_id, one in endings.items():
            if one is not None:
                yield self._ask("settle", "settle", settlement(hold_id, one, reaping))
                if pause_us := self._kernel.at("reap.ended", self.process):
                    yield pause_us

    def _traces(self, holds: Mapping[str, Hold]) -> Traces:
        found, living, proving = {}, set(), set()
        for spool in self._machine.disk.spools.values():
            if spool.is_locked:
                living.add(spool.name)
            found |= told(spool.records, holds.keys(), writer_lives=spool.is_locked)
            if self._machine.disk.proves_absence(spool):
                proving.add(spool.name)
        return Traces(found, frozenset(living), frozenset(proving))

    # leases that nobody gives back any more

    def _reap_leases(self) -> Any:
        overdue = yield self._ask("leases.read", "listed", LEASES_LATE_MS)
        if overdue:
            yield from self._at("reap_leases.found")
        spools, waits = self._machine.disk.spools, []
        for one in overdue:
            spool, kept = spools.get(one.owner), None
            if spool is not None:
                if not spool.is_locked:
                    continue
                kept = {each.lease_id for each in spool.leases}
            wait_ms = self._patience_ms(one, kept, LEASES_LATE_MS, LOST_MS)
            if wait_ms is not None:
                waits.append(TakenBack(one.lease_id, one.account, wait_ms))
        for back in waits:
            yield self._take_back(back)
            yield from self._at("reap_leases.ended")

    def _take_back(self, back: TakenBack) -> Call:
        return self._ask("take_back", "take_back", back)

    # segments that prove nothing any more

    def _prune(self) -> Any:
        for spool in list(self._machine.disk.spools.values()):
            if spool.is_locked and len(spool.segments) > 1:
                number = yield Call(
                    self._ledger, "ledger.missing", self._spent, spool, repeatable=False
                )
                spool.delete(number)
                if pause_us := self._kernel.at("prune.deletes", self.process):
                    yield pause_us

    def _spent(self, spool: SpoolFile) -> int:
        def recorded(events: Sequence[bytes]) -> bool:
            return not self._ledger.missing({DECODER.decode(each).event_id for each in events})

        return acknowledged(spool.segments, recorded, writer_lives=True)

    # asking the store

    def _at(self, step: str) -> Any:
        if pause_us := self._kernel.at(step, self.process):
            yield pause_us

    def _ask(self, name: str, method: str, *args: Any) -> Call:
        return Call(self._store, name, getattr(self._store, method), *args)

    def _token(self) -> str:
        self._tokens += 1
        return f"{self.process.name}:{self._tokens}"

    def _return_lease(self, name: str, token: str) -> Any:
        try:
            yield self._ask("lease.return", "return_lease", name, token)
        except Unreachable:
            return


def _dead() -> Process:
    process = Process("nobody")
    process.alive = False
    return process


_NOBODY: Final = _dead()
