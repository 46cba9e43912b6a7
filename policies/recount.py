"""Accounts brought to what the ledger has, while requests go on: the model of two scripts.

A *cut* reads what accounts show at one instant of the journal. Whoever made it works out what they
should have shown at that instant, and *corrects* them by the difference, some time later: what was
posted and held in between is in both. A cut is good for one correction, so a recount that is run
again, or by two at once, corrects nothing twice.

An account that is opened takes in the holds that are there and belong on it: they settle on it too.
"""

from collections.abc import Sequence

import msgspec

from policies.budgets import Account, Balance, Hold, State, held_on


class Correction(msgspec.Struct, frozen=True, array_like=True):
    """What is missing on one account, below zero where it has too much. Opens it where it is not
    there yet. `end_ms`: the end of its window.
    """

    key: str
    posted: int
    held: int
    end_ms: int


class Adoption(msgspec.Struct, frozen=True):
    """A living hold, as it was read before the cut, and the accounts that it shall stand on too."""

    hold: Hold
    accounts: tuple[Account, ...]


def cut(
    state: State, token: str, keys: Sequence[str]
) -> tuple[State, tuple[Balance | None, ...], int]:
    """What these accounts show, None where there is none, and how long the journal is then. Any
    cut before this one is void.
    """
    shown = tuple(state.accounts.get(key) for key in keys)
    return msgspec.structs.replace(state, cut=token), shown, len(state.journal)


def correct(
    state: State, token: str, corrections: Sequence[Correction], adopted: Sequence[Adoption] = ()
) -> tuple[State, bool]:
    """All corrections, and the cut is used up; nothing when it is not `token`'s cut, or when a hold
    stands on other accounts by now. Of a hold that has ended since, the accounts show all it held
    as posted: never less than it cost, and to be counted again.
    """
    if not token or state.cut != token:
        return state, False
    holds = dict(state.holds)
    for adoption in adopted:
        asked = adoption.hold.admission
        hold = holds.get(asked.hold_id)
        if hold is not None and len(hold.admission.accounts) != len(asked.accounts):
            return state, False
    accounts = dict(state.accounts)
    for one in corrections:
        was = accounts.get(one.key, Balance())
        accounts[one.key] = was.plus(posted=one.posted, held=one.held)
    for adoption in adopted:
        hold = holds.get(adoption.hold.admission.hold_id)
        for account in adoption.accounts:
            known = hold if hold is not None else adoption.hold
            amount = held_on(account, known.admission, known.grant)
            was_there = accounts.get(account.key, Balance())
            shown = was_there.plus(held=amount) if hold else was_there.plus(posted=amount)
            accounts[account.key] = shown
        if hold is not None:
            holds[hold.admission.hold_id] = standing_on(hold, adoption.accounts)
    return msgspec.structs.replace(state, accounts=accounts, holds=holds, cut=""), True


def standing_on(hold: Hold, more: Sequence[Account]) -> Hold:
    """The hold with these accounts after its own."""
    ask = hold.admission
    wider = msgspec.structs.replace(ask, accounts=(*ask.accounts, *more))
    return msgspec.structs.replace(hold, admission=wider)
