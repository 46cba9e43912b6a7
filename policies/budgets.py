"""Budgets that hold: the executable model of admit, settle, release and extend.

Each function is the specification of the Lua script of the same name: same arithmetic, same
order of checks, same state afterwards. State goes in, the next state and the answer come out.
Amounts are counter units of the tenant's currency (or tokens), whole numbers up to MAX_COUNTER.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from policies import accounts as of_accounts
from policies import idempotency, leases
from policies.accounts import MONEY, NO_CAP, TOKENS, Account, Balance
from policies.holds import (
    MAX_CHOICES,
    MAX_COUNTER,
    MAX_LEVELS,
    MAX_STOOD_ON,
    MAX_TOKENS,
    MAX_UNIT_PRICE,
    Admission,
    Granted,
    Hold,
    Reaping,
    Refused,
    Settlement,
    State,
)
from policies.idempotency import Replay
from policies.limits import all_corrected, is_full, taken, wait_us

__all__ = [
    "MAX_CHOICES",
    "MAX_COUNTER",
    "MAX_LEVELS",
    "MAX_STOOD_ON",
    "MAX_TOKENS",
    "MAX_UNIT_PRICE",
    "MONEY",
    "NO_CAP",
    "TOKENS",
    "Account",
    "Admission",
    "Balance",
    "Granted",
    "Hold",
    "Reaping",
    "Refused",
    "Settlement",
    "State",
    "admit",
    "extend",
    "grant_of",
    "held_on",
    "release",
    "settle",
]

V = TypeVar("V")

BUSY_RETRY_MS: Final = 1000  # when a slot comes free is nobody's to know


def admit(state: State, ask: Admission, now_us: int) -> tuple[State, Granted | Refused | Replay]:
    """Take every limit and place the hold on every account, or change nothing (L3)."""
    now_ms = now_us // 1000
    if ask.hold_id in state.holds:
        hold = state.holds[ask.hold_id]
        if hold is None:
            return state, Refused("spent", 0, 0, now_ms)
        named = hold.admission.accounts[: len(ask.accounts)]  # what was opened since may follow
        was = msgspec.structs.replace(hold.admission, accounts=named)
        return state, _granted(state, was, hold.grant, now_us, duplicate=True)
    if ask.ticket is not None:
        replay = idempotency.replay(state.tickets, ask.ticket, state.expiries_ms.keys(), now_ms)
        if replay is not None:
            return state, replay
    refused = (
        _crowded(state, ask, now_ms)
        or _stale(ask, now_ms)
        or _rate(state, ask, now_us)
        or _concurrency(state, ask, now_ms)
        or _unopened(state, ask, now_ms)
        or _budget(state, ask, now_ms)
    )
    if refused is not None:
        return state, refused
    placed = _placed(state, ask, grant_of(state, ask), now_us)
    return placed, _granted(placed, ask, grant_of(state, ask), now_us, duplicate=False)


def settle(state: State, done: Settlement, now_us: int) -> tuple[State, bool]:
    """Post the truth instead of the hold. An absent hold moves no counter: journal only."""
    if done.reaping is not None and not _may_reap(state, done, done.reaping, now_us):
        return state, False
    hold = state.holds.get(done.hold_id)
    if hold is not None:
        state = _lifted(state, hold)
        accounts = () if done.unheld else hold.admission.accounts
        balances = of_accounts.posted(state.accounts, accounts, done.money, done.tokens)
        gates = all_corrected(state.gates, done.gate_corrections, now_us)
        state = msgspec.structs.replace(state, accounts=balances, gates=gates)
        if done.unprocessed:
            state = _ticket_back(state, hold)
    if done.unheld and done.hold_id not in state.posted:
        state = _posted_unheld(state, done)
    if done.unheld or (hold is not None and done.reaping is not None and not done.unprocessed):
        state = msgspec.structs.replace(state, posted=state.posted | {done.hold_id})
    if done.event is not None:
        entry = (done.event, hold is not None or bool(done.unheld))
        state = msgspec.structs.replace(state, journal=(*state.journal, entry))
    return state, hold is not None


def release(
    state: State, hold_id: str, corrections: Sequence[tuple[str, int]], now_us: int
) -> tuple[State, bool]:
    """Undo a hold. The id of an absent one is spent: a late admission of it is refused."""
    hold = state.holds.get(hold_id)
    if hold is None:
        return msgspec.structs.replace(state, holds={**state.holds, hold_id: None}), False
    state = _ticket_back(_lifted(state, hold), hold)
    gates = all_corrected(state.gates, corrections, now_us)
    return msgspec.structs.replace(state, gates=gates), True


def extend(
    state: State, hold_ids: Sequence[str], ttl_ms: int, now_us: int
) -> tuple[State, tuple[str, ...]]:
    """Move the expiry of these holds to now + ttl; the ids that are not there come back."""
    expiry_ms = now_us // 1000 + ttl_ms
    slots = {key: dict(members) for key, members in state.slots.items()}
    expiries, absent = dict(state.expiries_ms), []
    for hold_id in hold_ids:
        hold = state.holds.get(hold_id)
        if hold is None:
            absent.append(hold_id)
            continue
        expiries[hold_id] = expiry_ms
        for slot in hold.admission.slots:
            slots[slot.key][hold_id] = expiry_ms
    return msgspec.structs.replace(state, slots=slots, expiries_ms=expiries), tuple(absent)


def held_on(account: Account, ask: Admission, grant: int) -> int:
    """What this grant holds on that account, in the account's unit."""
    fixed, per_token = _terms(account, ask)
    return fixed + per_token * grant


def grant_of(state: State, ask: Admission) -> int:
    """The output tokens per choice that the tightest level can pay, at most those wanted; a firm
    request gets none of what is leased.

    Beyond the caps it is bounded by what a counter can hold.
    """
    return _grant(state, ask, beside_leases=ask.firm)


def _grant(state: State, ask: Admission, *, beside_leases: bool) -> int:
    grant = ask.wanted
    if ask.output_money > 0:
        worth = (MAX_COUNTER - ask.input_money) // (ask.choices * ask.output_money)
        grant = min(grant, worth)
    capped = [account for account in ask.accounts if account.cap != NO_CAP]
    return min([grant, *(_fits(state, a, ask, beside_leases=beside_leases) for a in capped)])


def _posted_unheld(state: State, done: Settlement) -> State:
    """What may not begin at zero has this of the journal when it is opened, by a later cut. The id
    is spent: its admission, should it still be on its way, would hold what is posted.
    """
    known, since_ms = state.accounts, state.since_ms
    opened = [a for a in done.unheld if of_accounts.unopened([a], known, since_ms) is None]
    state = leases.repaid(state, done)
    known = state.accounts
    balances = of_accounts.posted(known, opened, done.money, done.tokens)
    cut = state.cut if len(opened) == len(done.unheld) else ""
    holds = {**state.holds, done.hold_id: None}
    return msgspec.structs.replace(state, accounts=balances, holds=holds, cut=cut)


def _may_reap(state: State, done: Settlement, reaping: Reaping, now_us: int) -> bool:
    expiry_ms = state.expiries_ms.get(done.hold_id)
    mine = state.leases.get(reaping.lease) == reaping.token
    return mine and expiry_ms is not None and expiry_ms + reaping.late_ms <= now_us // 1000


def _terms(account: Account, ask: Admission) -> tuple[int, int]:
    if account.unit == MONEY:
        return ask.input_money, ask.choices * ask.output_money
    return ask.input_tokens, ask.choices


def _fits(state: State, account: Account, ask: Admission, *, beside_leases: bool) -> int:
    """Output tokens per choice that this capped account can pay; -1 when not even the input."""
    fixed, per_token = _terms(account, ask)
    room = _left(state, account, beside_leases=beside_leases) - fixed
    if room < 0:
        return -1
    return room // per_token if per_token > 0 else ask.wanted


def _crowded(state: State, ask: Admission, now_ms: int) -> Refused | None:
    wait_ms = idempotency.crowded_ms(state.tickets, ask.ticket, now_ms) if ask.ticket else 0
    return Refused("tickets", 0, wait_ms, now_ms) if wait_ms else None


def _stale(ask: Admission, now_ms: int) -> Refused | None:
    index = of_accounts.stale(ask.accounts, now_ms)
    return None if index is None else Refused("stale_window", index, 0, now_ms)


def _rate(state: State, ask: Admission, now_us: int) -> Refused | None:
    """The gate with the longest wait speaks: a retry after a shorter one would be refused again."""
    waits = [wait_us(state.gates.get(gate.key, 0), gate, now_us) for gate in ask.gates]
    longest = max(waits, default=0)
    if longest <= 0:
        return None
    return Refused("rate", waits.index(longest), -(-longest // 1000), now_us // 1000)


def _concurrency(state: State, ask: Admission, now_ms: int) -> Refused | None:
    for index, slot in enumerate(ask.slots):
        if is_full(slot, state.slots.get(slot.key, {}), now_ms):
            return Refused("concurrency", index, BUSY_RETRY_MS, now_ms)
    return None


def _unopened(state: State, ask: Admission, now_ms: int) -> Refused | None:
    index = of_accounts.unopened(ask.accounts, state.accounts, state.since_ms)
    return None if index is None else Refused("unopened", index, 0, now_ms)


def _budget(state: State, ask: Admission, now_ms: int) -> Refused | None:
    """Of the accounts that refuse, the one whose window ends last says when to come back. Where
    leases are in the way, they are to be asked back first.
    """
    grant = grant_of(state, ask)
    if grant >= ask.least:
        narrowed = _grant(state, ask, beside_leases=True) < grant
        return Refused("leased", 0, 0, now_ms) if narrowed else None
    refusing = [
        index
        for index, account in enumerate(ask.accounts)
        if account.cap != NO_CAP and _fits(state, account, ask, beside_leases=ask.firm) < ask.least
    ]
    index = max(refusing, key=lambda i: ask.accounts[i].end_ms)
    account = ask.accounts[index]
    return Refused(
        "budget",
        index,
        retry_after_ms=account.end_ms - now_ms,
        now_ms=now_ms,
        available=max(grant, 0),
        left=max(_left(state, account, beside_leases=ask.firm), account.cap - MAX_COUNTER),
        unheld=_fits_unheld(state, ask),
    )


def _fits_unheld(state: State, ask: Admission) -> bool:
    """Whether what is held, and may come back, is all that is in the way."""
    settled = {
        key: msgspec.structs.replace(balance, held=0) for key, balance in state.accounts.items()
    }
    return grant_of(msgspec.structs.replace(state, accounts=settled), ask) >= ask.least


def _left(state: State, account: Account, *, beside_leases: bool) -> int:
    balance = state.accounts.get(account.key, Balance())
    left = account.cap - balance.posted - balance.held
    return left - balance.leased if beside_leases else left


def _placed(state: State, ask: Admission, grant: int, now_us: int) -> State:
    expiry_ms = now_us // 1000 + ask.ttl_ms
    gates, accounts = dict(state.gates), dict(state.accounts)
    slots = {key: dict(members) for key, members in state.slots.items()}
    for gate in ask.gates:
        if gate.advance_us > 0:
            gates[gate.key] = taken(gates.get(gate.key, 0), gate, now_us)
    for slot in ask.slots:
        slots.setdefault(slot.key, {})[ask.hold_id] = expiry_ms
    for account in ask.accounts:
        was = accounts.get(account.key, Balance())
        accounts[account.key] = was.plus(held=held_on(account, ask, grant))
    tickets = state.tickets
    if ask.ticket is not None:
        tickets = idempotency.taken(tickets, ask.ticket, ask.hold_id, now_us // 1000)
    return msgspec.structs.replace(
        state,
        gates=gates,
        slots=slots,
        accounts=accounts,
        tickets=tickets,
        holds={**state.holds, ask.hold_id: Hold(grant, now_us // 1000, ask)},
        expiries_ms={**state.expiries_ms, ask.hold_id: expiry_ms},
    )


def _granted(state: State, ask: Admission, grant: int, now_us: int, *, duplicate: bool) -> Granted:
    """What the caller is told of the state its hold is part of."""

    def left(account: Account) -> int:
        balance = state.accounts[account.key]
        return max(account.cap - balance.posted - balance.held, 0)

    return Granted(
        output_tokens=grant,
        held_money=ask.input_money + ask.choices * ask.output_money * grant,
        now_ms=now_us // 1000,
        remaining=tuple(NO_CAP if a.cap == NO_CAP else left(a) for a in ask.accounts),
        gate_wait_us=tuple(max(state.gates.get(g.key, 0) - now_us, 0) for g in ask.gates),
        duplicate=duplicate,
    )


def _lifted(state: State, hold: Hold) -> State:
    """The state without the hold, nothing posted in its place."""
    ask = hold.admission
    accounts = dict(state.accounts)
    for account in ask.accounts:
        was = accounts[account.key]
        accounts[account.key] = was.plus(held=-held_on(account, ask, hold.grant))
    return msgspec.structs.replace(
        state,
        accounts=accounts,
        slots={key: _without(members, ask.hold_id) for key, members in state.slots.items()},
        holds=_without(state.holds, ask.hold_id),
        expiries_ms=_without(state.expiries_ms, ask.hold_id),
    )


def _ticket_back(state: State, hold: Hold) -> State:
    ask = hold.admission
    tickets = idempotency.given_back(state.tickets, ask.ticket, ask.hold_id)
    return msgspec.structs.replace(state, tickets=tickets)


def _without(mapping: Mapping[str, V], key: str) -> dict[str, V]:
    return {name: value for name, value in mapping.items() if name != key}
