"""`GET /v1/usage`: where this key stands in its own budgets and limits. Read from the store, no
SQL.
"""

from typing import Any

from billing.money import format_counter
from gateway import clock
from gateway.dataplane.levels import Meter
from gateway.dataplane.snapshot import Principal, Snapshot
from gateway.stores.redis.accounts import AccountReader
from gateway.stores.redis.holds import MONEY, Account, StoreUnavailable
from policies.decision import Deny, DenyCode


async def usage_of(
    snapshot: Snapshot, accounts: AccountReader, principal: Principal
) -> dict[str, Any] | Deny:
    """Spent, held and remaining by budget; used and remaining by token limit. Only the key's own:
    what its team or tenant has is not the key holder's to see.
    """
    levels = snapshot.levels(principal)
    standing = levels.at(clock.now_us())
    budgets: list[dict[str, Any]] = []
    limits: list[dict[str, Any]] = []
    try:
        for meter, account in zip(standing.meters, standing.accounts, strict=True):
            if meter.level != "key":
                continue
            balance = await accounts(levels.tag, account.key) or (0, 0)
            if meter.unit == MONEY:
                budgets.append(_budget(meter, account, balance, principal.tenant.currency))
            else:
                limits.append(_tokens_per_day(account, balance))
    except StoreUnavailable:
        return Deny(
            DenyCode.QUOTA_UNAVAILABLE,
            "usage cannot be read right now; retry shortly",
            retry_after_ms=2_000,
        )
    limits += [
        {"kind": f"{limit.kind}_per_minute", "limit": limit.per_minute, "burst": limit.burst}
        for limit in (*levels.requests, *levels.tokens)
        if limit.level_id == principal.key.id
    ]
    return {
        "object": "usage",
        "key": {"id": principal.key.id, "name": principal.key.name},
        "team": principal.teams[-1].name,
        "tenant": principal.tenant.name,
        "budgets": budgets,
        "limits": limits,
    }


def _budget(
    meter: Meter, account: Account, balance: tuple[int, int], currency: str
) -> dict[str, Any]:
    posted, held = balance
    hard = account.cap >= 0
    left = max(0, account.cap - posted - held)
    return {
        "period": meter.period,
        "spent": format_counter(posted, currency),
        "held": format_counter(held, currency),
        "remaining": format_counter(left, currency) if hard else None,
        "limit": format_counter(account.cap, currency) if hard else None,
        "currency": currency,
        "resets_at": clock.rfc3339(account.end_ms * 1000),
    }


def _tokens_per_day(account: Account, balance: tuple[int, int]) -> dict[str, Any]:
    posted, held = balance
    return {
        "kind": "tokens_per_day",
        "limit": account.cap,
        "used": posted,
        "held": held,
        "remaining": max(0, account.cap - posted - held),
        "resets_at": clock.rfc3339(account.end_ms * 1000),
    }
