"""Accounts: one budget in one window, what stands on it, and when it may be used."""

from collections.abc import Container, Mapping, Sequence
from typing import Final

import msgspec

NO_CAP: Final = -1
MONEY: Final = 0
TOKENS: Final = 1


class Account(msgspec.Struct, frozen=True, array_like=True):
    """One budget in one window, `start_ms` <= time < `end_ms` of the store's clock.

    `cap` is in `unit` (MONEY: counter units, TOKENS); NO_CAP counts without refusing. Of what was
    spent before `since_ms` it knows nothing, unless it was opened with that.
    """

    key: str
    cap: int
    start_ms: int
    end_ms: int
    unit: int
    id: str
    since_ms: int = 0


class Balance(msgspec.Struct, frozen=True):
    """`leased` is set aside for workers to spend while the store is away; it is no part of
    `held`.
    """

    posted: int = 0
    held: int = 0
    leased: int = 0

    def plus(self, posted: int = 0, held: int = 0, leased: int = 0) -> "Balance":
        return Balance(self.posted + posted, self.held + held, self.leased + leased)


def stale(accounts: Sequence[Account], now_ms: int) -> int | None:
    """The first whose window it is not."""
    for index, account in enumerate(accounts):
        if not account.start_ms <= now_ms < account.end_ms:
            return index
    return None


def unopened(accounts: Sequence[Account], known: Container[str], since_ms: int) -> int | None:
    """The first that is not there and may not begin at zero: in its window, before it was counted
    at all or before the store's counters were whole (`since_ms`), something may have been spent.
    """
    for index, account in enumerate(accounts):
        if account.key not in known and account.start_ms < max(account.since_ms, since_ms):
            return index
    return None


def posted(
    balances: Mapping[str, Balance], accounts: Sequence[Account], money: int, tokens: int
) -> dict[str, Balance]:
    """All balances, with so much more spent on these accounts."""
    after = dict(balances)
    for account in accounts:
        was = after.get(account.key, Balance())
        actual = money if account.unit == MONEY else tokens
        after[account.key] = was.plus(posted=actual)
    return after
