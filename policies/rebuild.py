"""Holds of living requests put back into a store that has lost them, and what they amount to: the
model of restore.lua.

Nothing is asked and nothing refused: the money was granted before the store lost its state.
"""

from collections.abc import Iterable, Mapping

import msgspec

from policies.budgets import Admission, Balance, Hold, State, held_on


def restore(state: State, ask: Admission, now_us: int) -> tuple[State, bool]:
    """Place the hold as it was granted, with no output still to grant. One that is there lives on
    as it is; an id that is spent stays so.
    """
    expiries = {**state.expiries_ms, ask.hold_id: now_us // 1000 + ask.ttl_ms}
    if ask.hold_id in state.holds:
        if state.holds[ask.hold_id] is not None:
            state = msgspec.structs.replace(state, expiries_ms=expiries)
        return state, False
    accounts = dict(state.accounts)
    for account in ask.accounts:
        was = accounts.get(account.key, Balance())
        accounts[account.key] = was.plus(held=held_on(account, ask, 0))
    hold = Hold(0, now_us // 1000, ask)
    holds = {**state.holds, ask.hold_id: hold}
    state = msgspec.structs.replace(state, accounts=accounts, holds=holds, expiries_ms=expiries)
    return state, True


def held(holds: Iterable[Hold]) -> Mapping[str, int]:
    """What these holds amount to, by account."""
    found: dict[str, int] = {}
    for hold in holds:
        for account in hold.admission.accounts:
            amount = held_on(account, hold.admission, hold.grant)
            found[account.key] = found.get(account.key, 0) + amount
    return found
