"""The laws of leases: never more is spent of one than was granted, what may be spent is set aside
for as long as it may be, and what is set aside is what is lent.

They know who spends from the workers themselves, by request: its worst case while it goes on, then
what it came to.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from policies.budgets import NO_CAP, Account, Balance, Settlement, State
from policies.leases import LeaseAsked, Lent, TakenBack
from tests.simulator.kernel import Process
from tests.simulator.violation import Violation

_NOTHING = Balance()


class LeaseLaws:
    def __init__(self, has_evidence: Callable[[str], bool], *, one_home: bool) -> None:
        """`has_evidence`: whether the spool that says what a request paid with is still there."""
        self._has_evidence = has_evidence
        self._one_home = one_home
        self._granted: Counter[str] = Counter()  # the most that was ever lent
        self._lent_in: dict[str, int] = {}  # after how many losses of the store, the last time
        self._spent: dict[str, dict[str, int]] = {}  # by lease and request
        self._paid_by: dict[str, set[str]] = {}  # the leases of a request
        self._open: dict[str, set[str]] = {}  # requests that the store does not know, by lease
        self._spenders: dict[str, Process] = {}
        self._sent: set[str] = set()
        self._losses = 0
        self._whole = False  # the counters were made so, and nothing was lost since
        self._closed = False  # they are being made: leases are taken back and lent again

    def lent(self, before: State, after: State, asked: LeaseAsked, answer: Lent) -> None:
        key, id_ = asked.account.key, asked.lease_id
        was, now = before.accounts.get(key, _NOTHING), after.accounts.get(key, _NOTHING)
        more = now.leased - was.leased
        over = now.posted + now.held + now.leased - asked.account.cap
        if more > 0 and asked.account.cap != NO_CAP and over > 0:
            raise Violation("L2", f"{asked.account.id} is over its cap by {over}, lent to {id_}")
        if more < 0:
            raise Violation("L2", f"{id_} was made smaller by {-more} and may be spent")
        self._granted[id_] = max(self._granted[id_], answer.amount)
        self._lent_in[id_] = self._losses

    def spends(
        self,
        state: State,
        request_id: str,
        paid: Sequence[tuple[Account, str]],
        money: int,
        process: Process,
    ) -> None:
        """A request is let in that may cost so much."""
        for account, id_ in paid:
            self._spent.setdefault(id_, {})[request_id] = money
            self._open.setdefault(id_, set()).add(request_id)
            self._paid_by.setdefault(request_id, set()).add(id_)
            self._spenders[id_] = process
            spent = sum(self._spent[id_].values())
            if spent > self._granted[id_]:
                what = f"{spent} of {id_} on {account.id}, {self._granted[id_]} were lent"
                raise Violation("L2", what, request_id)
            known = self._lent_in[id_] == self._losses or (self._one_home and self._whole)
            if known and not self._closed:
                self._is_set_aside(state, id_, request_id)

    def _is_set_aside(self, state: State, id_: str, request_id: str) -> None:
        lease, due = state.lent.get(id_), self._due(id_)
        if due and (lease is None or lease.amount < due):
            there = 0 if lease is None else lease.amount
            what = f"{due} of {id_} are being spent and {there} are set aside"
            raise Violation("L2", what, request_id)

    def _due(self, id_: str) -> int:
        return sum(self._spent[id_][request] for request in self._open.get(id_, ()))

    def spent(self, request_id: str, money: int) -> None:
        """It has come to so much."""
        for id_ in self._paid_by.get(request_id, ()):
            self._spent[id_][request_id] = money
            if not money:
                self._open[id_].discard(request_id)

    def dispatched(self, request_id: str) -> None:
        self._sent.add(request_id)

    def settled(self, before: State, after: State, done: Settlement) -> None:
        """What is posted in a lease's place is taken out of it."""
        for account, id_ in zip(done.unheld, done.leases, strict=False):
            lease = before.lent.get(id_)
            if lease is None or done.hold_id in before.posted:
                continue
            was = before.accounts.get(account.key, _NOTHING)
            now = after.accounts.get(account.key, _NOTHING)
            more = now.posted + now.leased - was.posted - was.leased
            if more > max(0, done.money - lease.amount):
                what = f"{done.hold_id} was paid for by {id_} and costs {more} beside it"
                raise Violation("L2", what, done.hold_id)
        if done.hold_id in after.posted:
            for id_ in self._paid_by.get(done.hold_id, ()):
                self._open[id_].discard(done.hold_id)

    def taken_back(self, back: TakenBack, ended: bool) -> None:
        if not ended or not self._whole:
            return
        for request_id in sorted(self._open.get(back.lease_id, ())):
            if request_id in self._sent and self._has_evidence(request_id):
                what = f"{back.lease_id} was taken back while {request_id} is paid with it"
                raise Violation("L2", what, request_id)

    def closed(self) -> None:
        """Nothing is admitted until they are opened."""
        self._whole, self._closed = False, True

    def opened(self, state: State) -> None:
        """The counters are said to be whole: what living workers spend is set aside."""
        self._whole, self._closed = True, False
        if not self._one_home:
            return
        for id_, requests in self._open.items():
            if requests and self._spenders[id_].alive:
                self._is_set_aside(state, id_, min(requests))

    def lost(self) -> None:
        self._losses += 1
        self._whole = self._closed = False

    def whole(self, state: State) -> None:
        """L1: what is leased of an account is the sum of its leases."""
        sums: Counter[str] = Counter()
        for lease in state.lent.values():
            sums[lease.account] += lease.amount
        for key, balance in state.accounts.items():
            if balance.leased != sums[key]:
                what = f"{key} has {balance.leased} leased, its leases are {sums[key]}"
                raise Violation("L1", what)
