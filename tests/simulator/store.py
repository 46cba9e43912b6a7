"""The quota store: the executable model of its scripts, and around it what a server adds: its own
clock, expiry of leases and of spent ids, a stream that is read by a group, a replica behind it.

Which model of each script is used is a parameter, so that a wrong one can be put in its place.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from policies import budgets, slices
from policies.budgets import Admission, Granted, Hold, Refused, Settlement, State
from policies.slices import Slice, SliceAsked
from tests.simulator.kernel import Kernel, Peer

SPENT_US: Final = 120_000_000  # as release.lua's SPENT_MS
Corrections = Sequence[tuple[str, int]]


class Scripts(msgspec.Struct, frozen=True):
    """The atomic steps, as the specification has them."""

    admit: Callable[..., tuple[State, Granted | Refused]] = budgets.admit
    settle: Callable[..., tuple[State, bool]] = budgets.settle
    release: Callable[..., tuple[State, bool]] = budgets.release
    extend: Callable[..., tuple[State, tuple[str, ...]]] = budgets.extend
    take_slice: Callable[..., tuple[State, Slice | None]] = slices.take_slice


class Watcher:
    """Told about every step, with the state before and after it. The laws are one."""

    def admitted(self, before: State, after: State, ask: Admission, answer: Any) -> None: ...
    def settled(self, before: State, after: State, done: Settlement, found: bool) -> None: ...
    def released(self, before: State, after: State, hold_id: str, found: bool) -> None: ...
    def grown(self, before: State, after: State, hold_id: str, answer: Slice | None) -> None: ...
    def lost(self, after: State) -> None: ...


class Entry(msgspec.Struct):
    """One entry of the journal; `reader` has read it and not said that it is done."""

    id: int
    event: bytes
    hold_found: bool
    reader: str = ""


class QuotaStore(Peer):
    def __init__(self, kernel: Kernel, watcher: Watcher, scripts: Scripts) -> None:
        self._kernel = kernel
        self._watcher = watcher
        self._scripts = scripts
        self.state = State()
        self.offset_us = 0
        self.journal: dict[int, Entry] = {}  # oldest first
        self._entries = 0
        self._unread = 0  # ids from here on were never read
        self._spent: deque[tuple[int, str]] = deque()
        self._leases: dict[str, int] = {}  # until when, by the store's clock
        self._replica: tuple[State, dict[int, Entry], int] = (State(), {}, 0)

    @property
    def now_us(self) -> int:
        return self._kernel.now_us + self.offset_us

    # the four scripts

    def admit(self, ask: Admission) -> Granted | Refused:
        before = self._expired()
        self.state, answer = self._scripts.admit(before, ask, self.now_us)
        self._tell(f"admit {ask.hold_id} : {type(answer).__name__}")
        self._watcher.admitted(before, self.state, ask, answer)
        return answer

    def settle(self, done: Settlement) -> bool:
        before = self._expired()
        after, found = self._scripts.settle(before, done, self.now_us)
        if after.journal:
            for event, hold_found in after.journal:
                self._entries += 1
                self.journal[self._entries] = Entry(self._entries, event, hold_found)
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

    def take_slice(self, asked: SliceAsked) -> Slice | None:
        before = self._expired()
        self.state, answer = self._scripts.take_slice(before, asked)
        self._tell(f"slice {asked.hold_id} : {answer}")
        self._watcher.grown(before, self.state, asked.hold_id, answer)
        return answer

    # reading holds

    def overdue(self, late_ms: int) -> tuple[str, ...]:
        until_ms = self.now_us // 1000 - late_ms
        return tuple(id_ for id_, at_ms in self.state.expiries_ms.items() if at_ms <= until_ms)

    def holds(self, hold_ids: Collection[str]) -> Mapping[str, Hold]:
        known = self.state.holds
        return {id_: hold for id_ in hold_ids if (hold := known.get(id_)) is not None}

    def all_holds(self) -> Mapping[str, Hold]:
        return {id_: hold for id_, hold in self.state.holds.items() if hold is not None}

    # leases

    def take_lease(self, name: str, token: str, ttl_ms: int) -> bool:
        state = self._expired()
        if name in state.leases:
            return False
        self._leases[name] = self.now_us + ttl_ms * 1000
        self.state = msgspec.structs.replace(state, leases={**state.leases, name: token})
        return True

    def return_lease(self, name: str, token: str) -> bool:
        state = self._expired()
        if state.leases.get(name) != token:
            return False
        self._forget_leases([name])
        return True

    # the journal

    def take(self, reader: str, most: int) -> tuple[Entry, ...]:
        taken = []
        for number in range(self._unread + 1, self._entries + 1):
            entry = self.journal.get(number)
            self._unread = number
            if entry is not None:
                entry.reader = reader
                taken.append(entry)
                if len(taken) == most:
                    break
        return tuple(taken)

    def reclaim(self, reader: str, most: int) -> tuple[Entry, ...]:
        orphans = [entry for entry in self.journal.values() if entry.reader][:most]
        for entry in orphans:
            entry.reader = reader
        return tuple(orphans)

    def waiting(self) -> tuple[bytes, ...]:
        return tuple(entry.event for entry in self.journal.values())

    def done(self, ids: Sequence[int]) -> None:
        for id_ in ids:
            self.journal.pop(id_, None)

    # what befalls it

    def replicate(self) -> None:
        copies = {id_: msgspec.structs.replace(entry) for id_, entry in self.journal.items()}
        self._replica = (self.state, copies, self._unread)

    def wipe(self) -> None:
        self.state, self.journal = State(), {}
        self._watcher.lost(self.state)
        self._leases.clear()
        self._unread = self._entries
        self.replicate()

    def fail_over(self) -> None:
        """The replica takes over; what came after its last word is gone."""
        self.state, self.journal, self._unread = self._replica
        self._watcher.lost(self.state)
        self._leases = dict.fromkeys(self.state.leases, self.now_us)
        self.replicate()

    def _tell(self, what: str) -> None:
        if self._kernel.trace is not None:
            self._kernel.say(f"store: {what}")

    def _expired(self) -> State:
        """The state without what has expired by now."""
        while self._spent and self._spent[0][0] <= self.now_us:
            _, hold_id = self._spent.popleft()
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
