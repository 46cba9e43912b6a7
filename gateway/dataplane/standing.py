"""`GET /v1/usage`: what this key has used, and where the budgets and limits on its path stand."""

from collections.abc import Awaitable, Callable
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from billing.money import format_counter, format_picos
from billing.periods import Window, window
from gateway import clock
from gateway.dataplane.levels import HOUR, Levels, Meter, RateLimit
from gateway.dataplane.snapshot import Principal, Snapshot
from gateway.stores.redis.accounts import AccountReader, GateReader
from gateway.stores.redis.holds import MONEY, Account, StoreUnavailable
from policies.accounts import Balance
from policies.decision import Deny, DenyCode


class Used(msgspec.Struct, frozen=True):
    """A key's usage of one span, from the ledger: some seconds behind, and exact."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    charge_picos: int = 0


# (tenant id, key id, window) -> what the ledger has. Raises what the database raises.
UsedReader = Callable[[str, str, Window], Awaitable[Used]]


class Readers(msgspec.Struct, frozen=True):
    """Where the figures come from. None of it is on the way of an inference request."""

    accounts: AccountReader
    gates: GateReader
    used: UsedReader


async def usage_of(
    snapshot: Snapshot, readers: Readers, principal: Principal
) -> dict[str, Any] | Deny:
    """Of budgets and limits every one that may refuse its requests, each with whose it is: the
    outermost first. What policies count by the hour depends on the request and is not shown.
    """
    tenant, now_us = principal.tenant, clock.now_us()
    levels = snapshot.levels(principal)
    month = window("month", ZoneInfo(tenant.timezone), now_us)
    try:
        budgets, limits = await _standing(levels, readers, principal, now_us)
    except StoreUnavailable:
        return Deny(
            DenyCode.QUOTA_UNAVAILABLE,
            "usage cannot be read right now; retry shortly",
            retry_after_ms=2_000,
        )
    used = await readers.used(tenant.id, principal.key.id, month)
    return {
        "object": "usage",
        "key": {"id": principal.key.id, "name": principal.key.name},
        "team": principal.teams[-1].name,
        "tenant": tenant.name,
        "used": {
            "period": "month",
            "from": clock.rfc3339(month.start_us),
            "requests": used.requests,
            "input_tokens": used.input_tokens,
            "output_tokens": used.output_tokens,
            "charge": format_picos(used.charge_picos),
            "currency": tenant.currency,
        },
        "budgets": budgets,
        "limits": limits,
    }


async def _standing(
    levels: Levels, readers: Readers, principal: Principal, now_us: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    budgets: list[dict[str, Any]] = []
    limits: list[dict[str, Any]] = []
    standing = levels.at(now_us)
    for meter, account in zip(standing.meters, standing.accounts, strict=True):
        if meter.period == HOUR:
            continue
        balance = await readers.accounts(levels.tag, account.key) or Balance()
        if meter.unit == MONEY:
            budgets.append(_budget(meter, account, balance, principal.tenant.currency))
        else:
            limits.append(_tokens_per_day(meter, account, balance))
    for limit in levels.per_minute:
        due_us = await readers.gates(levels.tag, limit.key)
        limits.append(_per_minute(limit, due_us, now_us))
    return budgets, limits


def _per_minute(limit: RateLimit, due_us: int, now_us: int) -> dict[str, Any]:
    wait_us = max(0, due_us - now_us)
    return {
        "kind": f"{limit.kind}_per_minute",
        "of": limit.label,
        "limit": limit.per_minute,
        "burst": limit.burst,
        "remaining": max(0, limit.left(wait_us)),
    }


def _budget(meter: Meter, account: Account, balance: Balance, currency: str) -> dict[str, Any]:
    """What workers have leased remains: they give it back to whoever needs it. Nothing stops at a
    soft budget, so what remains of it may be less than nothing.
    """
    posted, held = balance.posted, balance.held
    hard = account.cap >= 0
    left = meter.amount - posted - held
    return {
        "of": meter.label,
        "mode": "hard" if hard else "soft",
        "period": meter.period,
        "spent": format_counter(posted, currency),
        "held": format_counter(held, currency),
        "remaining": format_counter(max(0, left) if hard else left, currency),
        "limit": format_counter(meter.amount, currency),
        "currency": currency,
        "resets_at": clock.rfc3339(account.end_ms * 1000),
    }


def _tokens_per_day(meter: Meter, account: Account, balance: Balance) -> dict[str, Any]:
    posted, held = balance.posted, balance.held
    return {
        "kind": "tokens_per_day",
        "of": meter.label,
        "limit": account.cap,
        "used": posted,
        "held": held,
        "remaining": max(0, account.cap - posted - held),
        "resets_at": clock.rfc3339(account.end_ms * 1000),
    }
