"""Money lent to workers beforehand, to be spent while the store is away: the executable model of
lend.lua and take_back.lua, of what settle.lua does with a lease, and how large one is.

What is leased is taken out of what is left of the account, so posted + held + leased never passes
its cap. A request that its worker paid for with a lease is posted in the lease's place.
"""

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from policies.accounts import NO_CAP, Account, Balance
from policies.holds import Lease, Settlement, State

V = TypeVar("V")

PART: Final = 4  # all leases of an account together: at most a quarter of what is left of it
NEVER: Final = -1
BURN_S: Final = 60  # a lease is what was held for in a minute,
REQUESTS: Final = 4  # and enough for so many requests
_THOUSANDTHS: Final = 1_000


class LeaseAsked(msgspec.Struct, frozen=True, array_like=True):
    """`wanted` is the whole lease: asking twice lends once. Less than `least` is of no use.
    `workers` may each ask for as much. On an account without cap it is put back unasked.
    """

    lease_id: str
    ttl_ms: int
    wanted: int
    least: int
    workers: int
    account: Account


class Lent(msgspec.Struct, frozen=True):
    """What the lease is now; 0: there is none."""

    amount: int
    now_ms: int


class TakenBack(msgspec.Struct, frozen=True, array_like=True):
    """A lease to be ended; `late_ms` other than NEVER: only if it expired so long ago."""

    lease_id: str
    account: str  # its key
    late_ms: int = NEVER


class Burn(msgspec.Struct, frozen=True):
    """What requests of the last minute held on an account, the older the less of it."""

    money: int = 0
    thousandths: int = 0  # of requests

    def after_a_second(self, money: int, requests: int) -> "Burn":
        """With what came in it."""
        return Burn(
            self.money - -(-self.money // BURN_S) + money,
            self.thousandths - -(-self.thousandths // BURN_S) + requests * _THOUSANDTHS,
        )

    @property
    def typical(self) -> int:
        """What one request holds; a lease that cannot pay for it is of no use."""
        return self.money * _THOUSANDTHS // self.thousandths if self.thousandths else 0

    @property
    def wanted(self) -> int:
        return max(self.money, REQUESTS * self.typical)


def size(left: int, others: int, wanted: int, workers: int) -> int:
    """How much one worker may have of what is `left`, of which `others` have some. Below zero:
    they have more than their part already.
    """
    part = max(left, 0) // PART
    return min(wanted, part // workers, part - others)


def lend(state: State, asked: LeaseAsked, now_us: int) -> tuple[State, Lent]:
    """Give the lease another life, and more if there is more to be had. It is never made smaller:
    some of it may be spent by now. Nothing is lent of an account that is not there, nor outside its
    window.
    """
    account, now_ms = asked.account, now_us // 1000
    mine = state.lent[asked.lease_id].amount if asked.lease_id in state.lent else 0
    amount = max(asked.wanted, mine)
    if account.cap != NO_CAP:
        amount = mine
        balance = state.accounts.get(account.key)
        if balance is not None and account.start_ms <= now_ms < account.end_ms:
            left, others = account.cap - balance.posted - balance.held, balance.leased - mine
            due = size(left, others, asked.wanted, asked.workers)
            if due >= asked.least:
                amount = max(due, mine)
    if amount <= 0:
        return state, Lent(0, now_ms)
    lease = Lease(account.key, amount, now_ms + asked.ttl_ms)
    state = _changed(state, account.key, amount - mine)
    lent = {**state.lent, asked.lease_id: lease}
    return msgspec.structs.replace(state, lent=lent), Lent(amount, now_ms)


def take_back(state: State, back: TakenBack, now_us: int) -> tuple[State, bool]:
    """End a lease; answers whether it was there and was to be ended."""
    lease = state.lent.get(back.lease_id)
    if lease is None or lease.account != back.account:
        return state, False
    if back.late_ms != NEVER and lease.expiry_ms + back.late_ms > now_us // 1000:
        return state, False
    state = _changed(state, lease.account, -lease.amount)
    return msgspec.structs.replace(state, lent=_without(state.lent, back.lease_id)), True


def repaid(state: State, done: Settlement) -> State:
    """What a request has cost leaves the leases that paid for it. The rest of them stays lent."""
    for account, lease_id in zip(done.unheld, done.leases, strict=False):
        lease = state.lent.get(lease_id)
        if lease is None or lease.account != account.key:
            continue
        paid = min(lease.amount, done.money)
        state = _changed(state, lease.account, -paid)
        left = msgspec.structs.replace(lease, amount=lease.amount - paid)
        state = msgspec.structs.replace(state, lent={**state.lent, lease_id: left})
    return state


def _changed(state: State, key: str, more: int) -> State:
    was = state.accounts.get(key, Balance())
    return msgspec.structs.replace(state, accounts={**state.accounts, key: was.plus(leased=more)})


def _without(mapping: Mapping[str, V], key: str) -> dict[str, V]:
    return {name: value for name, value in mapping.items() if name != key}
