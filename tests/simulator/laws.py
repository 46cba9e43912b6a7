"""The laws, looked at after every write of the store and once more when everything is at rest.

They know the truth from elsewhere: the backends' books, what the workers really sent, and which
evidence a fault has destroyed. L and I numbers are those of the design and of the crash table.
"""

from collections import Counter
from typing import Any, Final

from billing.meters import Provenance
from billing.usage import UNKNOWN_ATTEMPT, UsageEvent
from policies.budgets import (
    MONEY,
    NO_CAP,
    Admission,
    Balance,
    Granted,
    Settlement,
    State,
    held_on,
)
from policies.slices import Slice
from tests.simulator.backend import Work
from tests.simulator.ledger import Ledger
from tests.simulator.store import QuotaStore, Watcher

WHOLE_LOOK_EVERY: Final = 64  # writes
MOST_UNMARKED: Final = 256 + 400  # tokens between two checkpoints, and the piece that passed them
_NOTHING: Final = Balance()


def held_money(ask: Admission, grant: int) -> int:
    return ask.input_money + ask.choices * ask.output_money * grant


class Violation(Exception):  # noqa: N818 (the word for it)
    """A law does not hold."""

    def __init__(self, law: str, what: str, request_id: str = "") -> None:
        super().__init__(f"{law}: {what}")
        self.law = law
        self.request_id = request_id


class Asked:
    """One request that was granted something: by what, and what was posted in its place."""

    __slots__ = ("ask", "ended", "grant", "reaped", "released")

    def __init__(self, ask: Admission, grant: int) -> None:
        self.ask = ask
        self.grant = grant
        self.ended: tuple[int, int] | None = None  # money, tokens
        self.released = False
        self.reaped = False  # it was not ended by its worker, nor by what that one left behind


class Laws(Watcher):
    def __init__(self, runs_ahead: int = 0) -> None:
        """`runs_ahead`: output tokens that can come while a slice is asked for."""
        self._runs_ahead = runs_ahead
        self.asked: dict[str, Asked] = {}
        self.sent: dict[str, set[int]] = {}  # what the workers know they dispatched
        self.burnt: set[str] = set()  # spools that are gone
        self.shortened: set[str] = set()  # holds of which a machine lost its last records
        self.unmarked: set[str] = set()  # checkpoints that a full disk refused
        self.unwritten: set[str] = set()  # outcomes that it refused
        self.store_lost = 0
        self.writes = 0
        self._owners: dict[str, str] = {}  # whose spool would know
        self._given_up: set[str] = set()  # holds that a reaper ended as never sent
        self._forgotten: set[str] = set()  # asked before the store lost what it knew

    def dispatched(self, request_id: str, attempt: int) -> None:
        if request_id in self._given_up:
            raise Violation(
                "L10", f"{request_id} was given up as never sent, then sent", request_id
            )
        self.sent.setdefault(request_id, set()).add(attempt)

    # after every write

    def admitted(self, before: State, after: State, ask: Admission, answer: Any) -> None:
        if not isinstance(answer, Granted) or answer.duplicate:
            if after.accounts is not before.accounts:
                raise Violation("L3", f"{ask.hold_id} was not let in and moved a counter")
            return
        for account in ask.accounts:
            was = before.accounts.get(account.key, _NOTHING)
            now = after.accounts.get(account.key, _NOTHING)
            if now.held - was.held != held_on(account, ask, answer.output_tokens):
                raise Violation("L3", f"{ask.hold_id} is not held on {account.id}", ask.hold_id)
            if account.cap != NO_CAP and now.posted + now.held > account.cap:
                over = now.posted + now.held - account.cap
                raise Violation("L2", f"{account.id} is over its cap by {over}", ask.hold_id)
        for slot in ask.slots:
            alive = sum(at > answer.now_ms for at in after.slots[slot.key].values())
            if alive > slot.maximum:
                raise Violation("L3", f"{slot.limit_id} has {alive} places taken", ask.hold_id)
        self.asked[ask.hold_id] = Asked(ask, answer.output_tokens)
        self._owners[ask.hold_id] = ask.owner
        self._look(after)

    def settled(self, before: State, after: State, done: Settlement, found: bool) -> None:
        if after.accounts is before.accounts:
            return
        asked = self.asked.get(done.hold_id)
        if asked is None or asked.ended is not None or asked.released:
            raise Violation("L1", f"{done.hold_id} was settled again", done.hold_id)
        asked.ended, asked.reaped = (done.money, done.tokens), done.reaping is not None
        if asked.reaped and done.event is None and done.hold_id not in self.sent:
            self._given_up.add(done.hold_id)
        for account in asked.ask.accounts:
            was, now = before.accounts[account.key], after.accounts[account.key]
            actual = done.money if account.unit == MONEY else done.tokens
            held = held_on(account, asked.ask, asked.grant)
            if (now.posted - was.posted, was.held - now.held) != (actual, held):
                raise Violation("L1", f"{done.hold_id} on {account.id}", done.hold_id)
            ahead = self._runs_ahead * asked.ask.output_money
            if account.unit == MONEY and actual > held + ahead and not self.store_lost:
                raise Violation("L2", f"{done.hold_id} cost more than was held", done.hold_id)
        self._look(after)

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
            if account.cap != NO_CAP and now.posted + now.held > account.cap:
                raise Violation("L2", f"{account.id} is over its cap by a slice", hold_id)
        self._look(after)

    def lost(self, after: State) -> None:
        """The store forgot: what it does not hold any more is no longer its business, and what it
        holds again may end again.
        """
        self.store_lost += 1
        self._forgotten.update(self.asked)
        held = {id_: hold for id_, hold in after.holds.items() if hold is not None}
        self.asked = {id_: Asked(hold.admission, hold.grant) for id_, hold in held.items()}
        self._forgotten.difference_update(self.asked)

    def _look(self, state: State) -> None:
        self.writes += 1
        if self.writes % WHOLE_LOOK_EVERY == 0:
            self.whole(state)

    def whole(self, state: State) -> None:
        """L1 over everything: held is the sum of the holds, posted of what ended."""
        held: Counter[str] = Counter()
        posted: Counter[str] = Counter()
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
            if balance.posted != posted[key] and not self.store_lost:
                raise Violation("L1", f"{key} has {balance.posted} posted of {posted[key]}")

    # at rest

    def at_rest(
        self, store: QuotaStore, ledger: Ledger, book: dict[tuple[str, int], Work], *, gentle: bool
    ) -> None:
        """`gentle`: no fault of this world can make a hold end before its worker ended it."""
        left = [id_ for id_, hold in store.state.holds.items() if hold is not None]
        if left:
            raise Violation("L10", f"{len(left)} holds are left", left[0])
        if any(store.state.slots.values()):
            raise Violation("L10", "a place of a concurrency limit is taken for ever")
        self.whole(store.state)
        for request_id in ledger.of_request.keys() - self.asked.keys() - self._forgotten:
            raise Violation("L4", f"{request_id} has a row and was never admitted", request_id)
        for request_id, asked in self.asked.items():
            rows = ledger.of_request.get(request_id, [])
            self._rows(request_id, rows, asked, gentle=gentle)
            self._figures(request_id, rows, book)
            self._counters(request_id, rows, asked, gentle=gentle)
        for request_id in self._forgotten:
            rows = ledger.of_request.get(request_id, [])
            self._rows(request_id, rows, None, gentle=False)
            self._figures(request_id, rows, book)

    def _rows(
        self, request_id: str, rows: list[UsageEvent], asked: Asked | None, *, gentle: bool
    ) -> None:
        """L4, L5: one row an attempt that was sent, none for any other, one winner at most."""
        net: Counter[int] = Counter()
        winners = 0
        for row in rows:
            sign = -1 if row.hold == "reversed" else 1
            net[row.attempt] += sign
            winners += sign * row.winner
        sent = self.sent.get(request_id, set())
        if self.store_lost and net[UNKNOWN_ATTEMPT] == 1 and len(net) > 1:
            # A hold that a failover brought back ends a second time, and its guess stays beside
            # the truth: nothing tells the ledger that it has to look.
            winners -= 1
            net[UNKNOWN_ATTEMPT] = 0
        booked = {attempt for attempt, count in net.items() if count}
        if winners > 1 or any(count not in (0, 1) for count in net.values()):
            raise Violation("L5", f"{request_id} is booked more than once: {dict(net)}", request_id)
        guessed = UNKNOWN_ATTEMPT in booked
        booked.discard(UNKNOWN_ATTEMPT)
        if guessed and (booked or gentle):
            raise Violation("L4", f"{request_id} is booked as what was and as a guess", request_id)
        if self._has_evidence(request_id):
            # A guess may stand for what was never sent: a machine that does not have the spool
            # cannot know, once the hold of a stalled worker has expired.
            if booked != sent:
                what = f"{request_id} was sent as {sorted(sent)} and is booked as {sorted(booked)}"
                raise Violation("L4", what, request_id)
        elif not booked <= sent:
            raise Violation("L4", f"{request_id} is booked as {sorted(booked)}", request_id)
        elif sent and asked is not None and not (booked or guessed):
            raise Violation("L10", f"{request_id} was sent and forgotten", request_id)

    def _has_evidence(self, request_id: str) -> bool:
        """Whether its worker's spool, whole, has been where the jobs could read it."""
        if request_id in self.shortened or request_id in self.unwritten:
            return False
        return self._owners[request_id] not in self.burnt

    def _figures(
        self, request_id: str, rows: list[UsageEvent], book: dict[tuple[str, int], Work]
    ) -> None:
        """What the backend reported is billed to the token; an estimate stays within its bound."""
        undone = {row.event_id.removesuffix(":reversed") for row in rows if row.hold == "reversed"}
        for row in rows:
            work = book.get((request_id, row.attempt))
            if row.hold == "reversed" or row.event_id in undone or not row.winner:
                continue
            done = (0, 0) if work is None else (work.input_tokens, work.output_tokens)
            billed = row.usage.all_input, row.usage.output
            if row.attempt == UNKNOWN_ATTEMPT:
                continue
            if row.provenance is Provenance.REPORTED and billed != done:
                raise Violation("L4", f"{row.event_id} is billed {billed}, was {done}", request_id)
            if billed[1] > done[1]:
                raise Violation("L10", f"{row.event_id} is billed {billed} of {done}", request_id)
            sure = request_id not in self.unmarked and self._has_evidence(request_id)
            if sure and row.stream and done[1] - billed[1] > MOST_UNMARKED:
                raise Violation("N13", f"{row.event_id} is billed {billed} of {done}", request_id)

    def _counters(
        self, request_id: str, rows: list[UsageEvent], asked: Asked, *, gentle: bool
    ) -> None:
        """L7, L9: what was posted is what the ledger says, in the window the ledger says. It may be
        something else only where a hold was ended for want of evidence that came to light later.
        """
        for row in rows:
            at_ms = row.admitted_at_us // 1000
            for account in asked.ask.accounts:
                if not account.start_ms <= at_ms < account.end_ms:
                    what = f"{row.event_id} is in another window than its hold on {account.id}"
                    raise Violation("L9", what, request_id)
        posted = 0 if asked.ended is None else asked.ended[0]
        booked = sum(row.counter_nanos for row in rows)
        explained = asked.reaped or not self._has_evidence(request_id)
        if posted != booked and (gentle or not explained):
            what = f"{request_id} has {posted} posted and {booked} booked"
            raise Violation("L7", what, request_id)
