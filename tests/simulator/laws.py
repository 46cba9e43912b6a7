"""The laws, looked at after every write of the store. What must hold at rest is in verdict.py.

They know the truth from elsewhere: the backends' books, what the workers really sent, and which
evidence a fault has destroyed. L and I numbers are those of the design and of the crash table.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from billing.usage import DECODER, UsageEvent
from gateway.stores.redis.epochs import Epoch
from gateway.stores.sql.corrections import is_weak
from policies.budgets import (
    MONEY,
    NO_CAP,
    Account,
    Admission,
    Balance,
    Granted,
    Settlement,
    State,
    held_on,
)
from policies.idempotency import FINISHED, Replay
from policies.leases import TakenBack
from policies.recount import Correction
from policies.slices import Slice
from tests.simulator.kernel import Process
from tests.simulator.lease_laws import LeaseLaws
from tests.simulator.store import Watcher
from tests.simulator.violation import Violation

WHOLE_LOOK_EVERY: Final = 64  # writes
_NOTHING: Final = Balance()


def held_money(ask: Admission, grant: int) -> int:
    return ask.input_money + ask.choices * ask.output_money * grant


class Asked:
    """One request that was granted something: by what, and what was posted in its place."""

    __slots__ = ("ask", "ended", "grant", "reaped", "regained", "released")

    def __init__(self, ask: Admission, grant: int) -> None:
        self.ask = ask
        self.grant = grant
        self.ended: tuple[int, int] | None = None  # money, tokens
        self.released = False
        self.regained = False  # by a failover, which may have forgotten slices
        self.reaped = False  # it was not ended by its worker, nor by what that one left behind


class Laws(Watcher):
    def __init__(self, runs_ahead: int = 0, *, one_home: bool = True) -> None:
        """`runs_ahead`: output tokens that can come while a slice is asked for. `one_home`: every
        spool is where a rebuild of lost counters reads it.
        """
        self._runs_ahead = runs_ahead
        self._one_home = one_home
        self.asked: dict[str, Asked] = {}
        self.sent: dict[str, set[int]] = {}  # what the workers know they dispatched
        self.burnt: set[str] = set()  # spools that are gone
        self.shortened: set[str] = set()  # holds of which a machine lost its last records
        self.unmarked: set[str] = set()  # checkpoints that a full disk refused
        self.unwritten: set[str] = set()  # outcomes that it refused
        self.store_lost = 0
        self.writes = 0
        self.owners: dict[str, str] = {}  # whose spool would know
        self.unheld: dict[str, tuple[Account, ...]] = {}  # admitted without the store
        self.forgotten: set[str] = set()  # asked before the store lost what it knew
        self.asks: dict[str, Admission] = {}  # as they were granted first
        self.reaped: set[str] = set()  # ended by somebody else, once at least
        self._given_up: set[str] = set()  # holds that a reaper ended as never sent
        self._flying: dict[str, Process] = {}  # dispatched, and no end of it was written
        self._posted_unheld: set[str] = set()  # since the store was lost last
        self._beside: Counter[str] = Counter()  # posted otherwise than in the place of a hold
        self._spent: Counter[str] = Counter()  # by account: what is told of, and cannot be untold
        self._spoken: set[str] = set()  # events that are in `spent`, and their requests
        self._told_of: dict[str, tuple[str, dict[str, int]]] = {}  # by event: what it added
        self._told_alone: set[str] = set()  # events that no counter moved for, since the last loss
        self._is_whole = False  # the counters were made so, and nothing was lost since
        self._tickets: dict[str, list[str]] = {}  # by ticket: who was let in with it
        self.processed: set[str] = set()  # a backend did work for it
        self._leases = LeaseLaws(self.has_evidence, one_home=one_home)
        self.spent, self.lent = self._leases.spent, self._leases.lent

    # what the workers and the backends do

    def let_in(self, request_id: str, accounts: tuple[Account, ...], owner: str) -> None:
        """Without the store, as every budget on its path allows."""
        self.unheld[request_id] = accounts
        self._given_up.discard(request_id)
        self.owners.setdefault(request_id, owner)

    def spends(
        self, state: State, request_id: str, ids: Sequence[str], money: int, process: Process
    ) -> None:
        """It was let in for these leases, beside the accounts."""
        paid = [(a, id_) for a, id_ in zip(self.unheld[request_id], ids, strict=True) if id_]
        self._leases.spends(state, request_id, paid, money, process)

    def dispatched(self, request_id: str, attempt: int, process: Process) -> None:
        if request_id in self._given_up:
            raise Violation(
                "L10", f"{request_id} was given up as never sent, then sent", request_id
            )
        self.sent.setdefault(request_id, set()).add(attempt)
        self._flying[request_id] = process
        self._leases.dispatched(request_id)

    def concluded(self, request_id: str) -> None:
        self._flying.pop(request_id, None)

    def worked_for(self, request_id: str) -> None:
        """A backend does. With an idempotency key only one request may bring it to that."""
        if request_id in self.processed:
            return
        self.processed.add(request_id)
        ask = self.asks.get(request_id)
        if ask is None or ask.ticket is None:
            return
        let_in = self._tickets.get(ask.ticket.key, ())
        others = self.processed.intersection(let_in)
        if request_id in let_in and others - {request_id}:
            what = f"{request_id} is done a second time, as {sorted(others - {request_id})} was"
            raise Violation("ONCE", what, request_id)

    # after every write

    def admitted(self, before: State, after: State, ask: Admission, answer: Any) -> None:
        if isinstance(answer, Replay):
            self._replayed(ask, answer)
        if not isinstance(answer, Granted) or answer.duplicate:
            if after.accounts is not before.accounts:
                raise Violation("L3", f"{ask.hold_id} was not let in and moved a counter")
            return
        for account in ask.accounts:
            was = before.accounts.get(account.key, _NOTHING)
            now = after.accounts.get(account.key, _NOTHING)
            if now.held - was.held != held_on(account, ask, answer.output_tokens):
                raise Violation("L3", f"{ask.hold_id} is not held on {account.id}", ask.hold_id)
            if account.cap != NO_CAP and now.posted + now.held + now.leased > account.cap:
                over = now.posted + now.held + now.leased - account.cap
                raise Violation("L2", f"{account.id} is over its cap by {over}", ask.hold_id)
            self._remembered(after, account, ask.hold_id)
        for slot in ask.slots:
            alive = sum(at > answer.now_ms for at in after.slots[slot.key].values())
            if alive > slot.maximum:
                raise Violation("L3", f"{slot.limit_id} has {alive} places taken", ask.hold_id)
        self.asked[ask.hold_id] = Asked(ask, answer.output_tokens)
        self.asks[ask.hold_id] = ask
        self.owners[ask.hold_id] = ask.owner
        if ask.ticket is not None:
            self._tickets.setdefault(ask.ticket.key, []).append(ask.hold_id)
        self._look(after)

    def _remembered(self, after: State, account: Account, request_id: str) -> None:
        """What was spent is posted, or held for still, or was known to a spool that is gone."""
        less = self._spent[account.key] - after.accounts[account.key].posted
        if less <= 0 or not self._one_home:
            return
        for hold in after.holds.values():
            if hold is not None and hold.admission.hold_id in self._spoken:
                for one in hold.admission.accounts:
                    less -= held_on(one, hold.admission, hold.grant) * (one.key == account.key)
        for told_of, amounts in self._told_of.values():
            if self.store_lost and not self.has_evidence(told_of):
                less -= amounts.get(account.key, 0)
        if less > 0:
            raise Violation("L2", f"{account.id} has forgotten {less}", request_id)

    def _replayed(self, ask: Admission, answer: Replay) -> None:
        first = self.asks[answer.request_id]
        if ask.ticket is None or first.ticket is None or first.ticket.key != ask.ticket.key:
            raise Violation("ONCE", f"{ask.hold_id} is told of another's request", ask.hold_id)
        if answer.answer and answer.answer != answer.request_id.encode():
            raise Violation("ONCE", f"{ask.hold_id} gets another's answer", ask.hold_id)
        if answer.answer and answer.state != FINISHED:
            raise Violation("ONCE", f"{ask.hold_id} gets an unfinished answer", ask.hold_id)

    def settled(self, before: State, after: State, done: Settlement, found: bool) -> None:
        if done.event is not None and (found or done.reaping is None):
            self._told(DECODER.decode(done.event))
        self._leases.settled(before, after, done)
        self._counted_once(before, after, done, found)
        if after.accounts is before.accounts:
            return
        if found:
            self._ended(before, after, done)
        if done.unheld:
            self._posted_without_hold(before, after, done, found)
        self._look(after)

    def _counted_once(self, before: State, after: State, done: Settlement, found: bool) -> None:
        """What came into the journal alone is counted from there, and not posted later as well."""
        if done.event is None or not self._is_whole:
            return
        if done.reaping is not None and not found:  # it was not to be reaped, so nothing was told
            return
        event_id = DECODER.decode(done.event).event_id
        if not any(
            one.posted > before.accounts.get(key, _NOTHING).posted
            for key, one in after.accounts.items()
        ):
            self._told_alone.add(event_id)
        elif event_id in self._told_alone:
            raise Violation("L5", f"{done.hold_id} was told and is posted now", done.hold_id)

    def _ended(self, before: State, after: State, done: Settlement) -> None:
        asked = self.asked.get(done.hold_id)
        if asked is None or asked.ended is not None or asked.released:
            raise Violation("L1", f"{done.hold_id} was settled again", done.hold_id)
        lifted = bool(done.unheld)
        asked.ended = (0, 0) if lifted else (done.money, done.tokens)
        asked.reaped = done.reaping is not None or done.event is None
        if done.reaping is not None:
            self.reaped.add(done.hold_id)
            if done.unprocessed and done.hold_id not in self.sent:
                self._given_up.add(done.hold_id)
        for account in asked.ask.accounts:
            was, now = before.accounts[account.key], after.accounts[account.key]
            actual = done.money if account.unit == MONEY else done.tokens
            held = held_on(account, asked.ask, asked.grant)
            if was.held - now.held != held:
                raise Violation("L1", f"{done.hold_id} on {account.id}", done.hold_id)
            if not lifted and now.posted - was.posted != actual:
                raise Violation("L1", f"{done.hold_id} on {account.id}", done.hold_id)
            ahead = self._runs_ahead * asked.ask.output_money
            dear = account.unit == MONEY and actual > held + ahead
            # One served without the store may have its admission arrive when all is over.
            if dear and not (lifted or asked.regained or done.hold_id in self.unheld):
                raise Violation("L2", f"{done.hold_id} cost more than was held", done.hold_id)

    def _posted_without_hold(
        self, before: State, after: State, done: Settlement, found: bool
    ) -> None:
        """On every account that is open, and once."""
        again = done.hold_id in self._posted_unheld
        for account in done.unheld:
            was = before.accounts.get(account.key, _NOTHING).posted
            more = after.accounts.get(account.key, _NOTHING).posted - was
            if more not in (0, done.money if account.unit == MONEY else done.tokens):
                raise Violation("L1", f"{done.hold_id} on {account.id}", done.hold_id)
            if more and again:
                raise Violation("L5", f"{done.hold_id} was posted again", done.hold_id)
            self._beside[account.key] += more
        if not again and done.hold_id in after.posted:
            self._posted_unheld.add(done.hold_id)

    def released(self, before: State, after: State, hold_id: str, found: bool) -> None:
        if after.accounts is before.accounts:
            return
        asked = self.asked.get(hold_id)
        if asked is None or asked.ended is not None or asked.released:
            raise Violation("L1", f"{hold_id} was released after its end", hold_id)
        asked.released = True
        self._look(after)

    def grown(self, before: State, after: State, hold_id: str, answer: Slice | None) -> None:
        if after.accounts is before.accounts:
            return
        asked = self.asked[hold_id]
        more = held_money(asked.ask, answer.grant) - held_money(asked.ask, asked.grant)
        asked.grant = answer.grant
        for account in asked.ask.accounts:
            was, now = before.accounts[account.key], after.accounts[account.key]
            if account.unit == MONEY and now.held - was.held != more:
                raise Violation("L3", f"{hold_id} has not grown on {account.id}", hold_id)
            if account.cap != NO_CAP and now.posted + now.held + now.leased > account.cap:
                raise Violation("L2", f"{account.id} is over its cap by a slice", hold_id)
        self._look(after)

    def taken_back(self, after: State, back: TakenBack, ended: bool) -> None:
        self._leases.taken_back(back, ended)
        self._look(after)

    def restored(self, after: State, ask: Admission, placed: bool) -> None:
        if placed:
            before = self.asked.get(ask.hold_id)
            if before is not None and before.ended is not None:  # it has ended while we were at it
                for account in before.ask.accounts:
                    self._beside[account.key] += before.ended[0 if account.unit == MONEY else 1]
            self.asked[ask.hold_id] = Asked(ask, 0)
            self.forgotten.discard(ask.hold_id)
            self._given_up.discard(ask.hold_id)  # its worker finds it there, and goes on

    def corrected(self, after: State, corrections: Sequence[Correction]) -> None:
        for one in corrections:
            self._beside[one.key] += one.posted

    def opened(self, after: State, journal: Sequence[bytes]) -> None:
        """The counters are said to be whole: who is under way has a hold, and they are its sum."""
        self.whole(after)
        self._leases.opened(after)
        self._is_whole = True
        if not self._one_home:
            return
        for request_id, process in self._flying.items():
            held = after.holds.get(request_id) is not None
            gone = request_id in self.reaped or request_id in self.unheld
            if process.alive and not held and not gone:
                what = f"{request_id} is under way and the rebuilt counters do not know it"
                raise Violation("L7", what, request_id)

    def closed(self) -> None:
        """Nothing is admitted until the counters are whole again."""
        self._leases.closed()
        self._is_whole = False

    def trusted(self, epoch: Epoch, run_id: str, hold_id: str) -> None:
        """What is admitted is so against counters that were made whole in this very process."""
        if epoch.run_id != run_id or not epoch.is_open:
            raise Violation("L7", f"{hold_id} is let in against {epoch} of {run_id}", hold_id)

    def lost(self, after: State) -> None:
        """The store forgot: what it does not hold any more is no longer its business, and what it
        holds again may end again.
        """
        self.store_lost += 1
        self._leases.lost()
        self._is_whole = False
        self._told_alone.clear()
        self.forgotten.update(self.asked)
        held = {id_: hold for id_, hold in after.holds.items() if hold is not None}
        self.asked = {id_: Asked(hold.admission, hold.grant) for id_, hold in held.items()}
        for asked in self.asked.values():
            asked.regained = True
        self.forgotten.difference_update(self.asked)
        self._beside = Counter({key: one.posted for key, one in after.accounts.items()})
        self._posted_unheld.clear()
        kept = after.tickets.taken
        self._tickets = {key: ids for key, ids in self._tickets.items() if key in kept}

    def has_evidence(self, request_id: str) -> bool:
        """Whether its worker's spool, whole, has been where the jobs could read it."""
        if request_id in self.shortened or request_id in self.unwritten:
            return False
        return self.owners[request_id] not in self.burnt

    def _told(self, event: UsageEvent) -> None:
        """The store has it in its journal: from now on no counter may know less."""
        request_id = event.request_id
        ask = self.asks.get(request_id)
        sure = ask is not None and self.has_evidence(request_id) and request_id not in self.reaped
        if not sure or is_weak(event) or event.hold == "estimated" or request_id in self.unheld:
            return
        if event.event_id in self._spoken:
            return
        self._spoken.update((event.event_id, request_id))
        tokens = event.usage.total if event.winner else 0
        amounts = {
            account.key: event.counter_nanos if account.unit == MONEY else tokens
            for account in ask.accounts
        }
        self._spent.update(amounts)
        self._told_of[event.event_id] = request_id, amounts

    def _look(self, state: State) -> None:
        self.writes += 1
        if self.writes % WHOLE_LOOK_EVERY == 0:
            self.whole(state)

    def whole(self, state: State) -> None:
        """L1 over everything: held is the sum of the holds, posted of what ended."""
        self._leases.whole(state)
        held: Counter[str] = Counter()
        posted: Counter[str] = Counter(self._beside)
        for hold in state.holds.values():
            if hold is not None:
                for account in hold.admission.accounts:
                    held[account.key] += held_on(account, hold.admission, hold.grant)
        for asked in self.asked.values():
            if asked.ended is not None:
                for account in asked.ask.accounts:
                    posted[account.key] += asked.ended[0 if account.unit == MONEY else 1]
        for key, balance in state.accounts.items():
            if balance.held != held[key]:
                raise Violation("L1", f"{key} holds {balance.held}, its holds are {held[key]}")
            if balance.posted != posted[key]:
                raise Violation("L1", f"{key} has {balance.posted} posted of {posted[key]}")
