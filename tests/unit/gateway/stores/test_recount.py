"""Which accounts a look at all of them looks at."""

import pytest

from gateway.stores.recount import accounts
from gateway.stores.sql.rows import Budget, Limit, Tenant

MIDNIGHT_US = 1_795_302_000_000_000  # 2026-11-22 begins in Berlin
MINUTE_US = 60_000_000
TENANT = Tenant(id="acme", name="Acme", currency="USD", timezone="Europe/Berlin")
SCOPE = {"tenant_id": "acme", "scope_kind": "tenant", "scope_id": "acme"}
BUDGETS = [
    Budget(id=f"b_{period}", amount="1", period=period, mode="hard", **SCOPE)
    for period in ("day", "month", "total")
]
LIMITS = [Limit(id="l_1", tokens_per_day=5, **SCOPE)]


@pytest.mark.parametrize(
    ("minutes", "days"),
    [
        (-60, ["d2026-11-21"]),
        (-9, ["d2026-11-21", "d2026-11-22"]),
        (9, ["d2026-11-22", "d2026-11-21"]),
        (60, ["d2026-11-22"]),
    ],
)
def test_about_the_turn_of_a_window_both_are_in_force_by_somebodys_clock(
    minutes: int, days: list[str]
) -> None:
    found = accounts(TENANT, BUDGETS, LIMITS, [], MIDNIGHT_US + minutes * MINUTE_US)

    assert [one.window.id for one in found] == [*days, "m2026-11", "total", *days]
