"""Holds that grow while their stream runs: the executable model of slice.lua.

A sliced hold begins with its input and one slice of output; each further slice is taken on every
account of the hold or on none. Settling, releasing and reaping know no slices: the hold's grant is
what they lift, however it came about.
"""

import msgspec

from policies.accounts import MONEY, NO_CAP, Account, Balance
from policies.holds import MAX_COUNTER, MAX_TOKENS, Admission, Hold, State


class SliceAsked(msgspec.Struct, frozen=True, array_like=True):
    """`upto` is the whole grant wanted, in output tokens per choice: asking twice takes once."""

    hold_id: str
    upto: int


class Slice(msgspec.Struct, frozen=True):
    """The hold's grant now, in output tokens per choice. `blocked` is the index of the account
    that pays no more of what was asked; -1: none, or no counter could hold more. `leased`: there
    would be more if what is leased of the accounts with these keys were back.
    """

    grant: int
    blocked: int
    leased: tuple[str, ...] = ()


def take_slice(state: State, asked: SliceAsked) -> tuple[State, Slice | None]:
    """Raise the grant as far as the tightest account can pay; None: the hold is not there.

    A hold belongs to the window of its admission (L9) and is bound by the caps in force then (L2),
    whenever it grows, and by those of accounts that it came to stand on since. Of the accounts
    that refuse, the one whose window ends last is named.
    """
    hold = state.holds.get(asked.hold_id)
    if hold is None:
        return state, None
    ask = hold.admission
    wanted = _at_most(ask, asked.upto)
    priced = {
        index: (_balance(state, account), per_token)
        for index, account in enumerate(ask.accounts)
        if account.cap != NO_CAP and (per_token := _per_token(account, ask)) > 0
    }
    room = {i: _room(ask.accounts[i], was) for i, (was, _) in priced.items()}
    fits = {i: hold.grant + room[i] // each for i, (_, each) in priced.items()}
    alone = [hold.grant + (room[i] + was.leased) // each for i, (was, each) in priced.items()]
    short = [index for index, tokens in fits.items() if tokens < wanted]
    blocked = max(short, key=lambda i: ask.accounts[i].end_ms) if short else -1
    grant = max(hold.grant, min([wanted, *fits.values()]))
    more = min([wanted, *alone]) > grant
    leased = tuple(ask.accounts[i].key for i in short if more and priced[i][0].leased)
    if grant == hold.grant:
        return state, Slice(hold.grant, blocked, leased)
    return _grown(state, hold, grant), Slice(grant, blocked, leased)


def _at_most(ask: Admission, upto: int) -> int:
    """What a counter can hold of it."""
    upto = min(upto, MAX_TOKENS)
    price = ask.choices * ask.output_money
    return min(upto, (MAX_COUNTER - ask.input_money) // price) if price > 0 else upto


def _per_token(account: Account, ask: Admission) -> int:
    return ask.choices * ask.output_money if account.unit == MONEY else ask.choices


def _balance(state: State, account: Account) -> Balance:
    return state.accounts.get(account.key, Balance())


def _room(account: Account, balance: Balance) -> int:
    """What the account has left; less than nothing once an overrun was posted."""
    return account.cap - balance.posted - balance.held - balance.leased


def _grown(state: State, hold: Hold, grant: int) -> State:
    ask = hold.admission
    accounts = dict(state.accounts)
    for account in ask.accounts:
        was = accounts[account.key]
        more = (grant - hold.grant) * _per_token(account, ask)
        accounts[account.key] = was.plus(held=more)
    grown = msgspec.structs.replace(hold, grant=grant)
    return msgspec.structs.replace(
        state, accounts=accounts, holds={**state.holds, ask.hold_id: grown}
    )
