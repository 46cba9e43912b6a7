"""The quota store: the executable model of its scripts, and around it what a server adds: its own
clock, expiry of leases and of spent ids, an epoch, a replica behind it, a process that is replaced.

Which model of each script is used is a parameter, so that a wrong one can be put in its place.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.stores.redis import keys
from gateway.stores.redis.epochs import Epoch
from gateway.stores.redis.lending import Listed
from policies import budgets, idempotency, leases, rebuild, recount, slices
from policies.budgets import Admission, Granted, Hold, Refused, Settlement, State
from policies.idempotency import Keeping, Replay, Tickets
from policies.leases import LeaseAsked, Lent, TakenBack
from policies.recount import Correction
from policies.slices import Slice, SliceAsked
from tests.simulator.journal import Entry, Journal
from tests.simulator.kernel import Kernel, Peer

SPENT_US: Final = 120_000_000  # as release.lua's SPENT_MS
TAG: Final = "s00"
REBUILDER: Final = keys.lease(f"rebuild:{{{TAG}}}")
Corrections = Sequence[tuple[str, int]]
Admitted = Granted | Refused | Replay


class Scripts(msgspec.Struct, frozen=True):
    """The atomic steps, as the specification has them."""

    admit: Callable[..., tuple[State, Admitted]] = budgets.admit
    settle: Callable[..., tuple[State, bool]] = budgets.settle
    release: Callable[..., tuple[State, bool]] = budgets.release
    extend: Callable[..., tuple[State, tuple[str, ...]]] = budgets.extend
    take_slice: Callable[..., tuple[State, Slice | None]] = slices.take_slice
    keep: Callable[..., tuple[Tickets, bool]] = idempotency.keep
    restore: Callable[..., tuple[State, bool]] = rebuild.restore
    cut: Callable[..., Any] = recount.cut
    correct: Callable[..., tuple[State, bool]] = recount.correct
    lend: Callable[..., tuple[State, Lent]] = leases.lend
    take_back: Callable[..., tuple[State, bool]] = leases.take_back


class WrongEpoch(msgspec.Struct, frozen=True):
    """The script did not run: the store has another epoch than the caller knows, this one."""

    text: str


class Cut(msgspec.Struct, frozen=True):
    """`last`: the newest entry that the journal ever had; `entries`: how many are in it."""

    shown: tuple[budgets.Balance | None, ...]
    last: int
    entries: int


class Watcher:
    """Told about every step, with the state before and after it. The laws are one."""

    def admitted(self, before: State, after: State, ask: Admission, answer: Any) -> None: ...
    def settled(self, before: State, after: State, done: Settlement, found: bool) -> None: ...
    def released(self, before: State, after: State, hold_id: str, found: bool) -> None: ...
    def grown(self, before: State, after: State, hold_id: str, answer: Slice | None) -> None: ...
    def lent(self, before: State, after: State, asked: LeaseAsked, answer: Lent) -> None: ...
    def taken_back(self, after: State, back: TakenBack, ended: bool) -> None: ...
    def restored(self, after: State, ask: Admission, placed: bool) -> None: ...
    def corrected(self, after: State, corrections: Sequence[Correction]) -> None: ...
    def closed(self) -> None: ...
    def opened(self, after: State, journal: Sequence[bytes]) -> None: ...
    def trusted(self, epoch: Epoch, run_id: str, hold_id: str) -> None: ...
    def lost(self, after: State) -> None: ...


class Memory(msgspec.Struct, frozen=True):
    """All that one process of the store knows at an instant."""

    run_id: str
    state: State
    epoch: Epoch | None
    journal: Journal


class QuotaStore(Peer):
    is_far = True

    def __init__(self, kernel: Kernel, watcher: Watcher, scripts: Scripts) -> None:
        self._kernel = kernel
        self._watcher = watcher
        self._scripts = scripts
        self.state = State()
        self.epoch: Epoch | None = None
        self.run_id = "run1"
        self.since_us = 0  # this process answers
        self.offset_us = 0
        self.journal = Journal()
        self.lacks_account = False  # a worker waits for one
        self._processes = 1
        self._spent: deque[tuple[int, str]] = deque()
        self._leases: dict[str, int] = {}  # until when, by the store's clock
        self._replica = self._memory()
        self._deposed: Memory | None = None

    @property
    def now_us(self) -> int:
        return self._kernel.now_us + self.offset_us

    # the scripts of requests

    def admit(self, token: bytes, ask: Admission) -> Admitted | WrongEpoch:
        before = self._expired()
        if self.epoch is None or token != str(self.epoch).encode():
            return WrongEpoch("" if self.epoch is None else str(self.epoch))
        self.state, answer = self._scripts.admit(before, ask, self.now_us)
        self._tell(f"admit {ask.hold_id} : {type(answer).__name__}")
        self._watcher.admitted(before, self.state, ask, answer)
        if isinstance(answer, Granted):
            self._watcher.trusted(self.epoch, self.run_id, ask.hold_id)
        return answer

    def settle(self, done: Settlement) -> bool:
        before = self._expired()
        after, found = self._scripts.settle(before, done, self.now_us)
        if after.journal:
            for event, hold_found in after.journal:
                self.journal.add(event, hold_found)
            after = msgspec.structs.replace(after, journal=())
        self.state = after
        self._tell(f"settle {done.hold_id} : {done.money}, {'found' if found else 'not found'}")
        self._watcher.settled(before, after, done, found)
        return found

    def release(self, hold_id: str, corrections: Corrections) -> bool:
        before = self._expired()
        self.state, found = self._scripts.release(before, hold_id, corrections, self.now_us)
        if not found:
            self._spent.append((self.now_us + SPENT_US, hold_id))
        self._tell(f"release {hold_id} : {'found' if found else 'not found'}")
        self._watcher.released(before, self.state, hold_id, found)
        return found

    def extend(self, hold_ids: Sequence[str], ttl_ms: int) -> tuple[str, ...]:
        self.state, absent = self._scripts.extend(self._expired(), hold_ids, ttl_ms, self.now_us)
        return absent

    def take_slice(self, token: bytes, asked: SliceAsked) -> Slice | WrongEpoch | None:
        before = self._expired()
        if self.epoch is None or token != str(self.epoch).encode():
            return WrongEpoch("" if self.epoch is None else str(self.epoch))
        self.state, answer = self._scripts.take_slice(before, asked)
        self._tell(f"slice {asked.hold_id} : {answer}")
        self._watcher.grown(before, self.state, asked.hold_id, answer)
        return answer

    def keep(self, keeping: Keeping) -> bool:
        state = self._expired()
        tickets, kept = self._scripts.keep(state.tickets, keeping, self.now_us // 1000)
        self.state = msgspec.structs.replace(state, tickets=tickets)
        return kept

    # what workers have on lease

    def lend(self, token: bytes, asked: LeaseAsked) -> Lent | WrongEpoch:
        if self.epoch is None or token != str(self.epoch).encode():
            return WrongEpoch("" if self.epoch is None else str(self.epoch))
        return self._lend(asked)

    def lend_again(self, closed: Epoch, asked: LeaseAsked) -> Lent | None:
        """None: the tag is not closed for this rebuild."""
        return self._lend(asked) if self.epoch == closed else None

    def _lend(self, asked: LeaseAsked) -> Lent:
        before = self._expired()
        self.state, answer = self._scripts.lend(before, asked, self.now_us)
        self._tell(f"lend {asked.lease_id} on {asked.account.key} : {answer.amount}")
        self._watcher.lent(before, self.state, asked, answer)
        return answer

    def take_back(self, back: TakenBack, closed: Epoch | None = None) -> bool | None:
        """None: the tag is not closed for this rebuild."""
        if closed is not None and self.epoch != closed:
            return None
        self.state, ended = self._scripts.take_back(self._expired(), back, self.now_us)
        self._tell(f"take back {back.lease_id} : {ended}")
        self._watcher.taken_back(self.state, back, ended)
        return ended

    def listed(self, late_ms: int | None = None) -> tuple[Listed, ...]:
        """Every lease, or those that expired so long ago."""
        until_ms = self.now_us // 1000 - (late_ms or 0)
        return tuple(
            Listed(id_, lease.account)
            for id_, lease in self.state.lent.items()
            if late_ms is None or lease.expiry_ms <= until_ms
        )

    # reading holds

    def overdue(self, late_ms: int) -> tuple[str, ...]:
        until_ms = self.now_us // 1000 - late_ms
        return tuple(id_ for id_, at_ms in self.state.expiries_ms.items() if at_ms <= until_ms)

    def holds(self, hold_ids: Collection[str]) -> Mapping[str, Hold]:
        known = self.state.holds
        return {id_: hold for id_ in hold_ids if (hold := known.get(id_)) is not None}

    def all_holds(self) -> Mapping[str, Hold]:
        return {id_: hold for id_, hold in self.state.holds.items() if hold is not None}

    # the journal

    def take(self, reader: str, most: int) -> tuple[Entry, ...]:
        return self.journal.take(reader, most)

    def reclaim(self, reader: str, most: int) -> tuple[Entry, ...]:
        return self.journal.reclaim(reader, most)

    def journaled(self, until: int | None) -> tuple[bytes, ...]:
        return self.journal.waiting(until)

    def done(self, ids: Sequence[int]) -> None:
        self.journal.done(ids)

    # leases

    def take_lease(self, name: str, token: str, ttl_ms: int) -> bool:
        state = self._expired()
        if name in state.leases:
            return False
        self._leases[name] = self.now_us + ttl_ms * 1000
        self.state = msgspec.structs.replace(state, leases={**state.leases, name: token})
        return True

    def renew_lease(self, name: str, token: str, ttl_ms: int) -> bool:
        mine = self._expired().leases.get(name) == token
        if mine:
            self._leases[name] = self.now_us + ttl_ms * 1000
        return mine

    def return_lease(self, name: str, token: str) -> bool:
        state = self._expired()
        if state.leases.get(name) != token:
            return False
        self._forget_leases([name])
        return True

    def has_lease(self, name: str) -> bool:
        return name in self._expired().leases

    # counters made whole

    def look(self) -> tuple[Epoch | None, bool]:
        """The epoch, and whether a worker has waited for an account since it was last asked."""
        lacked, self.lacks_account = self.lacks_account, False
        return self.epoch, lacked

    def need_account(self) -> None:
        self.lacks_account = True

    def close_epoch(self, number: int, token: str) -> Epoch | None:
        if self._expired().leases.get(REBUILDER) != token:
            return None
        since_ms = self.now_us // 1000
        self.epoch = Epoch(False, number, since_ms, self.run_id)
        self.state = msgspec.structs.replace(self.state, since_ms=since_ms)
        self._tell(f"epoch {self.epoch}")
        self._watcher.closed()
        return self.epoch

    def open_epoch(self, closed: Epoch, token: str) -> bool:
        if self._expired().leases.get(REBUILDER) != token or self.epoch != closed:
            return False
        self.epoch = msgspec.structs.replace(closed, is_open=True)
        self._tell(f"epoch {self.epoch}")
        self._watcher.opened(self.state, self.journal.waiting())
        return True

    def restore(self, closed: Epoch, ask: Admission) -> bool | None:
        """None: the tag is not closed for this rebuild."""
        if self.epoch != closed:
            return None
        self.state, placed = self._scripts.restore(self._expired(), ask, self.now_us)
        self._tell(f"restore {ask.hold_id} : {placed}")
        self._watcher.restored(self.state, ask, placed)
        return placed

    def cut(self, token: str, accounts: Sequence[str]) -> Cut:
        shown: tuple[budgets.Balance | None, ...] = ()
        if token:
            self.state, shown, _ = self._scripts.cut(self._expired(), token, accounts)
        return Cut(shown, self.journal.last, len(self.journal))

    def correct(self, token: str, corrections: Sequence[Correction]) -> bool:
        self.state, done = self._scripts.correct(self._expired(), token, corrections)
        if done:
            for one in corrections:
                self._tell(f"correct {one.key} : {one.posted}, {one.held}")
            self._watcher.corrected(self.state, corrections)
        return done

    # what befalls it

    def replicate(self) -> None:
        self._replica = self._memory()

    def wipe(self, *, restarts: bool) -> None:
        """Emptied; with `restarts` by a process that takes its place."""
        run_id = self._new_process() if restarts else self.run_id
        self._become(Memory(run_id, State(), None, self.journal.emptied()))
        self.replicate()

    def fail_over(self) -> None:
        """The replica takes over; what came after its last word is gone."""
        self._deposed = self._memory()
        taken = msgspec.structs.replace(self._replica, run_id=self._new_process())
        self._become(taken)
        self.replicate()

    def fail_back(self) -> None:
        """The process that was replaced last answers again, and knows nothing of what came since.
        Where there is none it is a restart that lost nothing.
        """
        back = self._deposed or msgspec.structs.replace(self._memory(), run_id=self._new_process())
        self._deposed = None
        self._become(back)
        self.replicate()

    def _new_process(self) -> str:
        self._processes += 1
        return f"run{self._processes}"

    def _memory(self) -> Memory:
        return Memory(self.run_id, self.state, self.epoch, self.journal.copied())

    def _become(self, memory: Memory) -> None:
        if memory.run_id != self.run_id:
            self.connection += 1
            self.since_us = self._kernel.now_us
        self.run_id, self.state, self.epoch = memory.run_id, memory.state, memory.epoch
        self.journal = memory.journal.after(self.journal)
        self._leases = dict.fromkeys(self.state.leases, self.now_us)
        self.lacks_account = False
        self._watcher.lost(self.state)

    def _tell(self, what: str) -> None:
        if self._kernel.trace is not None:
            self._kernel.say(f"store: {what}")

    def _expired(self) -> State:
        """The state without what has expired by now."""
        while self._spent and self._spent[0][0] <= self.now_us:
            _, hold_id = self._spent.popleft()
            if hold_id in self.state.posted:
                continue  # spent for as long as that is known: longer than any world lasts
            if self.state.holds.get(hold_id, self) is None:
                left = {id_: hold for id_, hold in self.state.holds.items() if id_ != hold_id}
                self.state = msgspec.structs.replace(self.state, holds=left)
        over = [name for name, until_us in self._leases.items() if until_us <= self.now_us]
        if over:
            self._forget_leases(over)
        return self.state

    def _forget_leases(self, names: Collection[str]) -> None:
        for name in names:
            self._leases.pop(name, None)
        left = {name: token for name, token in self.state.leases.items() if name not in names}
        self.state = msgspec.structs.replace(self.state, leases=left)
