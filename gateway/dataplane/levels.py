"""Every limit and budget on a key's path, from the tenant down to the key, ready for admission.

What changes only with configuration is worked out once per key; windows are looked up again when
the clock has left the one in use. Amounts are counter units of the tenant's currency, or whole
tokens.
"""

from collections.abc import Iterable
from typing import Final, cast
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace

from billing.money import counter_picos
from billing.periods import Period, Window, hour, window
from gateway.stores.counted import allowed
from gateway.stores.redis import keys as names
from gateway.stores.redis.holds import MONEY, TOKENS, Account, Gate, Slot
from gateway.stores.sql.rows import Budget, Grant, Limit, Tenant
from gateway.stores.team_hours import TeamHour
from policies.budgets import NO_CAP
from policies.holds import MAX_COUNTER
from policies.team_hours import HourCeilings

MINUTE_US: Final = 60_000_000
HOUR: Final = "hour"  # the period of what a policy lets a team spend
_LOOK_AGAIN_US: Final = 3_600_000_000
BURST_US: Final = MINUTE_US // 6  # the published burst: a sixth of a minute's allowance


class Level(msgspec.Struct, frozen=True):
    """One scope on the path and how a refusal names it: `team search`."""

    kind: str
    id: str
    label: str


class Meter(msgspec.Struct, frozen=True):
    """Where one account stands in words, for refusals and headers."""

    label: str
    period: str  # hour | day | week | month | quarter | total; "tokens per day" for token accounts
    unit: int
    budget_id: str
    level: str  # tenant | team | key
    amount: int = 0  # of a budget with its grants, be it hard or soft
    policies: str = ""  # of an hour: those that bound it, by name


class Standing(msgspec.Struct, frozen=True):
    """The accounts of one instant. Valid until any of its windows ends."""

    accounts: tuple[Account, ...]
    meters: tuple[Meter, ...]  # beside accounts
    until_us: int
    own: tuple[int, ...] = ()  # which accounts are hard money budgets of the key itself
    leased: tuple[int, ...] = ()  # which accounts are spent from leases while the store is away
    path: str = ""  # the names of these accounts
    hours: tuple[tuple[int, tuple[str, str]], ...] = ()  # which are hours, and whose policy's


class RateLimit(msgspec.Struct, frozen=True):
    """A per-minute limit; `advance` is microseconds of the bucket that one unit takes."""

    key: str
    limit_id: str
    per_minute: int
    label: str
    kind: str  # requests | tokens
    level_id: str
    burst_us: int
    told: bytes  # per_minute, for a header

    def left(self, wait_us: int) -> int:
        """Of the burst, with the limit so far ahead of now; below zero where it is overdrawn."""
        return (self.burst_us - wait_us) * self.per_minute // MINUTE_US

    def further_us(self, taken: int, used: int) -> int:
        """How much further it stands for so many units than for those it was taken for."""
        rate = self.per_minute
        return (used * MINUTE_US + rate - 1) // rate - (taken * MINUTE_US + rate - 1) // rate

    def gate(self, units: int) -> Gate:
        suffix = "rpm" if self.kind == "requests" else "tpm"
        advance_us = (units * MINUTE_US + self.per_minute - 1) // self.per_minute
        return Gate(self.key, advance_us, self.burst_us, self.limit_id, suffix)

    @property
    def burst(self) -> int:
        return max(1, self.per_minute // 6)


class Levels:
    """One key's path: its rate limits, slots and accounts."""

    def __init__(
        self,
        tenant: Tenant,
        levels: list[Level],
        budgets: list[Budget],
        limits: list[Limit],
        grants: list[Grant],
        hours: Iterable[TeamHour] = (),
    ) -> None:
        self.tag = tenant.shard
        self._zone = ZoneInfo(tenant.timezone)
        self._currency = tenant.currency
        order = {(level.kind, level.id): level for level in levels}
        mine = [(order[(b.scope_kind, b.scope_id)], b) for b in budgets if _on(order, b)]
        caps = [(order[(li.scope_kind, li.scope_id)], li) for li in limits if _on(order, li)]
        rank = {level: place for place, level in enumerate(levels)}
        self._budgets = sorted(mine, key=lambda pair: rank[pair[0]])
        self._grants = grants
        self._hours = [(order[("team", of.team_id)], of) for of in hours if _counts(order, of)]
        self._bound: dict[HourCeilings, Standing] = {}  # the standing in use, by policy
        self._limits = sorted(caps, key=lambda pair: rank[pair[0]])
        self.requests = self._rate_limits("requests_per_minute", "requests", "rpm")
        self.tokens = self._rate_limits("tokens_per_minute", "tokens", "tpm")
        self.per_minute = (*self.requests, *self.tokens)  # in the order of their gates
        numbered = tuple(enumerate(self.per_minute))
        self.kinds = tuple(
            (kind, tuple(one for one in numbered if one[1].kind == kind))
            for kind in dict.fromkeys(limit.kind for limit in self.per_minute)
        )
        self.capped = any(budget.mode == "hard" for _, budget in self._budgets) or any(
            limit.tokens_per_day is not None for _, limit in self._limits
        )
        self.outage = _tightest(budget for _, budget in self._budgets)
        self.limited = bool(self._limits)
        self.slots = tuple(
            Slot(names.slots(self.tag, limit.id), limit.concurrent_requests, limit.id)
            for _, limit in self._limits
            if limit.concurrent_requests is not None
        )
        self.slot_labels = tuple(
            level.label for level, limit in self._limits if limit.concurrent_requests is not None
        )
        self.request_gates = tuple(limit.gate(1) for limit in self.requests)
        self._standing = Standing((), (), 0)

    def gates(self, tokens: int) -> tuple[Gate, ...]:
        """One request of so many tokens before the per-minute limits, in the order of these."""
        if not self.tokens:
            return self.request_gates
        return self.request_gates + tuple([limit.gate(tokens) for limit in self.tokens])

    def at(self, now_us: int) -> Standing:
        """The accounts in force now."""
        if now_us >= self._standing.until_us:
            self._standing = self._stand(now_us)
        return self._standing

    def refresh(self, now_us: int) -> Standing:
        """As `at`, for a store whose clock says that a window has turned while ours does not
        yet.
        """
        self._standing = self._stand(now_us)
        return self._standing

    def under(self, standing: Standing, ceilings: HourCeilings) -> Standing:
        """The standing of a request whose policy has these ceilings on what teams spend in an
        hour. What other requests of the team spend counts on the same accounts.
        """
        if not standing.hours:
            return standing
        if standing is not self._standing:
            return self._capped(standing, ceilings)
        found = self._bound.get(ceilings)
        if found is None:
            found = self._bound[ceilings] = self._capped(standing, ceilings)
        return found

    def _capped(self, standing: Standing, ceilings: HourCeilings) -> Standing:
        unit = counter_picos(1, self._currency)
        caps = {one.scope: min(one.picos // unit, MAX_COUNTER) for one in ceilings}
        accounts = list(standing.accounts)
        for place, scope in standing.hours:
            if scope in caps:
                accounts[place] = replace(accounts[place], cap=caps[scope])
        return replace(standing, accounts=tuple(accounts))

    def _rate_limits(self, field: str, kind: str, suffix: str) -> tuple[RateLimit, ...]:
        return tuple(
            RateLimit(
                key=names.gate(self.tag, limit.id, suffix),
                limit_id=limit.id,
                per_minute=getattr(limit, field),
                label=level.label,
                kind=kind,
                level_id=level.id,
                burst_us=max(BURST_US, -(-MINUTE_US // getattr(limit, field))),
                told=b"%d" % getattr(limit, field),
            )
            for level, limit in self._limits
            if getattr(limit, field) is not None
        )

    def _amount(self, budget: Budget, now_us: int) -> tuple[int, int]:
        """The amount with what is granted beyond it, and when the next of that ends."""
        living = [g for g in self._grants if g.budget_id == budget.id and g.until_us > now_us]
        until_us = min([g.until_us for g in living], default=now_us + _LOOK_AGAIN_US)
        return allowed(budget, living, self._currency), until_us

    def _stand(self, now_us: int) -> Standing:
        accounts: list[Account] = []
        meters: list[Meter] = []
        until_us = now_us + _LOOK_AGAIN_US
        for level, budget in self._budgets:
            spell = window(cast("Period", budget.period), self._zone, now_us)
            until_us = min(until_us, spell.end_us)
            amount, amount_until_us = self._amount(budget, now_us)
            until_us = min(until_us, amount_until_us)
            cap = amount if budget.mode == "hard" else NO_CAP
            key = names.account(self.tag, budget.account_id, spell.id)
            since_us = budget.counts_from_us
            accounts.append(_account(key, cap, spell, MONEY, budget.id, since_us))
            meters.append(Meter(level.label, budget.period, MONEY, budget.id, level.kind, amount))
        for level, limit in self._limits:
            if limit.tokens_per_day is None:
                continue
            spell = window("day", self._zone, now_us)
            until_us = min(until_us, spell.end_us)
            key = names.account(self.tag, limit.account_id, spell.id)
            cap, since_us = limit.tokens_per_day, limit.counts_from_us
            accounts.append(_account(key, cap, spell, TOKENS, limit.id, since_us))
            meters.append(Meter(level.label, "tokens per day", TOKENS, limit.id, level.kind))
        if self._hours:
            until_us = min(until_us, hour(now_us).end_us)
        hours = tuple((len(accounts) + n, of.scope) for n, (_, of) in enumerate(self._hours))
        self._count_hours(hour(now_us), accounts, meters)
        self._bound.clear()
        own = tuple(
            place
            for place, meter in enumerate(meters)
            if meter.level == "key" and meter.unit == MONEY and accounts[place].cap >= 0
        )
        leased = tuple(place for place, (_, b) in enumerate(self._budgets) if self._lends(b))
        path = " ".join([accounts[place].key for place in leased])
        return Standing(tuple(accounts), tuple(meters), until_us, own, leased, path, hours)

    def _count_hours(self, spell: Window, accounts: list[Account], meters: list[Meter]) -> None:
        for level, of in self._hours:
            key = names.account(self.tag, of.account_id, spell.id)
            since_us = of.counts_from_us
            accounts.append(_account(key, NO_CAP, spell, MONEY, of.policy_id, since_us))
            named = ", ".join(other.policy_name for _, other in self._hours if _beside(of, other))
            meters.append(Meter(level.label, HOUR, MONEY, of.policy_id, level.kind, 0, named))

    def _lends(self, budget: Budget) -> bool:
        return self.outage == "bounded" == budget.outage and budget.mode == "hard"


def _account(key: str, cap: int, spell: Window, unit: int, of: str, since_us: int) -> Account:
    start_ms, end_ms = spell.start_us // 1000, spell.end_us // 1000
    return Account(key, cap, start_ms, end_ms, unit, of, -(-since_us // 1000))


def _counts(order: dict[tuple[str, str], Level], of: TeamHour) -> bool:
    """Whether the key's spending is the team's: be the policy about the key or not."""
    return ("team", of.team_id) in order


def _beside(one: TeamHour, other: TeamHour) -> bool:
    """Of one scope the least ceiling holds on the accounts of all its policies."""
    return (one.scope, one.team_id) == (other.scope, other.team_id)


def _tightest(budgets: Iterable[Budget]) -> str:
    """What holds for the whole path while the store does not answer: strict | bounded | open. A
    soft budget has no cap that anything could exceed, so only its `strict` counts.
    """
    modes = {one.outage for one in budgets if one.mode == "hard" or one.outage == "strict"}
    return next((mode for mode in ("strict", "bounded") if mode in modes), "open")


def _on(order: dict[tuple[str, str], Level], row: Budget | Limit) -> bool:
    return (row.scope_kind, row.scope_id) in order
