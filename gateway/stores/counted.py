"""An account of the store, as those see it who know what it must show."""

from collections.abc import Iterable

import msgspec

from billing.money import parse_counter
from billing.periods import Window
from gateway.stores.sql.rows import Budget, Grant
from policies.accounts import NO_CAP
from policies.holds import MAX_COUNTER


class Counted(msgspec.Struct, frozen=True):
    """One account of the store and whose spending it counts; `cap` as it is now, in its unit."""

    key: str
    tenant_id: str
    scope_kind: str
    scope_id: str
    window: Window
    unit: int
    cap: int = NO_CAP


def allowed(budget: Budget, granted: Iterable[Grant], currency: str) -> int:
    """The budget's amount with these grants, in counter units."""
    amounts = (budget.amount, *(grant.amount for grant in granted))
    return min(sum([parse_counter(amount, currency) for amount in amounts]), MAX_COUNTER)
