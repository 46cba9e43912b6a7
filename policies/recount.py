"""Accounts brought to what the ledger has, while requests go on: the model of two scripts.

A *cut* reads what accounts show at one instant of the journal. Whoever made it works out what they
should have shown at that instant, and *corrects* them by the difference, some time later: what was
posted and held in between is in both. A cut is good for one correction, so a recount that is run
again, or by two at once, corrects nothing twice.
"""

from collections.abc import Sequence

import msgspec

from policies.budgets import Balance, State


class Correction(msgspec.Struct, frozen=True, array_like=True):
    """What is missing on one account, below zero where it has too much. Opens it where it is not
    there yet. `end_ms`: the end of its window.
    """

    key: str
    posted: int
    held: int
    end_ms: int


def cut(
    state: State, token: str, keys: Sequence[str]
) -> tuple[State, tuple[Balance | None, ...], int]:
    """What these accounts show, None where there is none, and how long the journal is then. Any
    cut before this one is void.
    """
    shown = tuple(state.accounts.get(key) for key in keys)
    return msgspec.structs.replace(state, cut=token), shown, len(state.journal)


def correct(state: State, token: str, corrections: Sequence[Correction]) -> tuple[State, bool]:
    """All corrections, and the cut is used up; nothing when it is not `token`'s cut."""
    if not token or state.cut != token:
        return state, False
    accounts = dict(state.accounts)
    for one in corrections:
        was = accounts.get(one.key, Balance())
        accounts[one.key] = was.plus(posted=one.posted, held=one.held)
    return msgspec.structs.replace(state, accounts=accounts, cut=""), True
