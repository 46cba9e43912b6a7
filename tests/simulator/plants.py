"""Wrong steps, planted on purpose in place of the right ones, for the simulator to find."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.dataplane.lease import Lease
from gateway.dataplane.lease_book import LeaseBook
from gateway.jobs.endings import NEVER_SENT, Ending, ending
from gateway.jobs.traces import Traces
from gateway.stores.redis.epochs import Epoch, Guard
from gateway.stores.redis.lending import Listed
from policies import budgets, leases, recount
from policies.budgets import (
    MONEY,
    NO_CAP,
    Admission,
    Balance,
    Granted,
    Hold,
    Settlement,
    State,
)
from policies.leases import LeaseAsked, Lent
from policies.recount import Correction
from tests.simulator.store import QuotaStore, Scripts
from tests.simulator.world import Parts


def double_settle() -> Parts:
    """A settlement that comes again is posted again."""
    settled: dict[str, Hold] = {}

    def settle(state: State, done: Settlement, now_us: int) -> tuple[State, bool]:
        hold = state.holds.get(done.hold_id)
        if hold is not None:
            settled[done.hold_id] = hold
        elif done.hold_id in settled and done.reaping is None:
            state = _posted(state, settled[done.hold_id], done)
        return budgets.settle(state, done, now_us)

    return Parts(scripts=Scripts(settle=settle))


def _posted(state: State, hold: Hold, done: Settlement) -> State:
    accounts = dict(state.accounts)
    for account in hold.admission.accounts:
        was = accounts.get(account.key, Balance())
        more = done.money if account.unit == MONEY else done.tokens
        accounts[account.key] = msgspec.structs.replace(was, posted=was.posted + more)
    return msgspec.structs.replace(state, accounts=accounts)


def refund_on_expiry() -> Parts:
    """A hold that expires goes back to who pays, as in a bank."""

    def judge(hold: Hold, seen: Traces, booked: Mapping[str, tuple[int, int]]) -> Ending | None:
        return None if ending(hold, seen, booked) is None else NEVER_SENT

    return Parts(judge=judge)


def check_then_act() -> Parts:
    """The balance is read, then written to, and somebody else may have been there in between."""
    read = [State()]

    def admit(state: State, ask: Admission, now_us: int) -> tuple[State, Any]:
        _, answer = budgets.admit(read[0], ask, now_us)
        read[0] = state
        if not isinstance(answer, Granted) or answer.duplicate:
            return state, answer
        unchecked = msgspec.structs.replace(
            ask,
            wanted=answer.output_tokens,
            least=answer.output_tokens,
            accounts=tuple(msgspec.structs.replace(a, cap=NO_CAP) for a in ask.accounts),
            slots=tuple(msgspec.structs.replace(slot, maximum=1 << 30) for slot in ask.slots),
        )
        return budgets.admit(state, unchecked, now_us)

    return Parts(scripts=Scripts(admit=admit))


def stale_epoch() -> Parts:
    """Any epoch that is open is believed, whichever process of the store it was opened in."""

    class Trusting(Guard):
        def told(self, text: str) -> bool:
            self._text = text.encode()
            return text.startswith("open:")

        @property
        def token(self) -> bytes:
            return self._text

    def is_whole(_store: QuotaStore, epoch: Epoch | None, _least: int) -> bool:
        return epoch is not None and epoch.is_open

    return Parts(guard=Trusting, is_whole=is_whole)


def not_recounted() -> Parts:
    """A rebuild that believes what the store shows as spent."""

    def correct(state: State, token: str, corrections: Sequence[Correction]) -> tuple[State, bool]:
        held = tuple(msgspec.structs.replace(one, posted=0) for one in corrections)
        return recount.correct(state, token, held)

    return Parts(scripts=Scripts(correct=correct))


def key_released_early() -> Parts:
    """An idempotency key is given back with the hold, whatever became of it."""

    def settle(state: State, done: Settlement, now_us: int) -> tuple[State, bool]:
        return budgets.settle(state, msgspec.structs.replace(done, unprocessed=True), now_us)

    return Parts(scripts=Scripts(settle=settle))


def posted_without_mark() -> Parts:
    """Who was served without the store is posted as often as it is told of."""

    def settle(state: State, done: Settlement, now_us: int) -> tuple[State, bool]:
        forgetful = msgspec.structs.replace(state, posted=frozenset())
        return budgets.settle(forgetful, done, now_us)

    return Parts(scripts=Scripts(settle=settle))


def spent_unreserved() -> Parts:
    """Of a lease is left what no request has ended on; those under way are not thought of."""

    class Careless(LeaseBook):
        def left(self, lease: Lease) -> int:
            return lease.amount - lease.spent

    return Parts(lease_book=Careless)


def given_back_unsettled() -> Parts:
    """A lease is given back as soon as its time is over, whatever is still being paid with it."""

    class Hasty(LeaseBook):
        def may_end(self, lease: Lease) -> bool:
            return True

    return Parts(lease_book=Hasty)


def ended_by_its_time() -> Parts:
    """An overdue lease is ended without asking who has it: its worker may be cut off, and go on."""

    def patience_ms(one: Listed, kept: Any, late_ms: int, lost_ms: int) -> int | None:
        return late_ms

    return Parts(patience_ms=patience_ms)


def not_lent_again() -> Parts:
    """A rebuild does not set aside what living workers may be spending."""

    def lend(state: State, asked: LeaseAsked, now_us: int) -> tuple[State, Lent]:
        if asked.account.cap == NO_CAP:
            return state, Lent(0, now_us // 1000)
        return leases.lend(state, asked, now_us)

    return Parts(scripts=Scripts(lend=lend))


def posted_beside_its_lease() -> Parts:
    """What a lease has paid for is posted, and the lease stays what it was."""

    def settle(state: State, done: Settlement, now_us: int) -> tuple[State, bool]:
        return budgets.settle(state, msgspec.structs.replace(done, leases=()), now_us)

    return Parts(scripts=Scripts(settle=settle))
