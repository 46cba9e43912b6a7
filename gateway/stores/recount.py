"""Accounts opened with what was spent before them, and brought back to it where they differ.

What an account must show is the ledger's sum for its scope and window, and the journal's entries
that the ledger does not have yet (L7). One that is opened takes in the holds of its window that are
there (L1, L9). Nothing here is on the way of a request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Final, cast
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Engine

from billing.periods import Period, Window, hour, window
from billing.usage import DECODER, UsageEvent
from gateway.stores import adoption
from gateway.stores.counted import Counted, allowed
from gateway.stores.redis import cuts, keys
from gateway.stores.redis.channel import Channels, StoreUnavailable
from gateway.stores.sql import spent
from gateway.stores.sql.rows import Budget, Grant, Limit, Tenant
from gateway.stores.team_hours import TeamHour
from policies.budgets import MONEY, NO_CAP, TOKENS, Balance, Hold
from policies.rebuild import held
from policies.recount import Correction

_AT_ONCE: Final = 10_000  # accounts a cut: they hold the store up for some 20 ms
_FREE_TRIES: Final = 2  # without the drain at rest; only where nothing is settled meanwhile
_TRIES: Final = 8
_HELD_TRIES: Final = 200
_SKEW_US: Final = 600_000_000  # by no more do the clocks of machines differ


def accounts(
    tenant: Tenant,
    budgets: Iterable[Budget],
    limits: Iterable[Limit],
    granted: Sequence[Grant],
    now_us: int,
    hours: Iterable[TeamHour] = (),
) -> list[Counted]:
    """Every account of the tenant that is in force at `now_us`, by whichever clock; with what these
    grants allow beyond the budgets.
    """
    zone = ZoneInfo(tenant.timezone)
    found = []
    for budget in budgets:
        more = [grant for grant in granted if grant.budget_id == budget.id]
        cap = allowed(budget, more, tenant.currency) if budget.mode == "hard" else NO_CAP
        for span in _in_force(cast("Period", budget.period), zone, now_us):
            key = keys.account(tenant.shard, budget.account_id, span.id)
            found.append(_counted(key, budget, span, MONEY, cap))
    for limit in limits:
        if limit.tokens_per_day is not None:
            for span in _in_force("day", zone, now_us):
                key = keys.account(tenant.shard, limit.account_id, span.id)
                found.append(_counted(key, limit, span, TOKENS, limit.tokens_per_day))
    for of in hours:
        for span in _about(hour, now_us):
            key = keys.account(tenant.shard, of.account_id, span.id)
            # Without a cap: it depends on the request.
            found.append(Counted(key, of.tenant_id, "team", of.team_id, span, MONEY))
    return found


def _in_force(period: Period, zone: ZoneInfo, now_us: int) -> list[Window]:
    return _about(partial(window, period, zone), now_us)


def _about(window_at: Callable[[int], Window], now_us: int) -> list[Window]:
    """The window, and about its ends its neighbour, which a store whose clock differs from ours
    takes for the one in force.
    """
    span = window_at(now_us)
    found = [span]
    if now_us - span.start_us < _SKEW_US:
        found.append(window_at(span.start_us - 1))
    if span.end_us - now_us < _SKEW_US:
        found.append(window_at(span.end_us))
    return found


def _counted(key: str, row: Budget | Limit, span: Window, unit: int, cap: int) -> Counted:
    return Counted(key, row.tenant_id, row.scope_kind, row.scope_id, span, unit, cap)


async def recount(
    engine: Engine,
    channels: Channels,
    tag: str,
    wanted: Sequence[Counted],
    *,
    unopened_only: bool = False,
) -> tuple[str, ...]:
    """Brings these accounts of one tag to what was spent; answers which were wrong or not there.

    Admissions and settlements go on meanwhile. `unopened_only`: those that are there are left as
    they are. Safe to run again, and by two at once. Raises StoreUnavailable, or what the database
    raises; some accounts may be done then.
    """
    changed: list[str] = []
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        for attempt in range(_TRIES):
            done = await _part(engine, channels, tag, part, unopened_only, attempt >= _FREE_TRIES)
            if done is None:
                continue
            opened, adopted = done
            changed += opened
            if adopted:  # some of what was taken in may have ended meanwhile
                await recount(engine, channels, tag, [one for one in part if one.key in opened])
            break
        else:
            raise StoreUnavailable("the accounts are being recounted by others; try again")
    return tuple(changed)


async def _part(
    engine: Engine,
    channels: Channels,
    tag: str,
    part: Sequence[Counted],
    unopened_only: bool,
    at_rest: bool,
) -> tuple[tuple[str, ...], bool] | None:
    """Which were changed, and whether holds were taken in. None: something came between, so
    nothing was changed.
    """
    async with AsyncExitStack() as stack:
        if at_rest:
            await stack.enter_async_context(cuts.still(channels, tag))
        cut = await cuts.cut(channels, tag, [one.key for one in part])
        living = await adoption.living(channels, tag) if None in cut.shown else ()
        if living:  # what ends between the two is counted twice for a moment, never not at all
            cut = await cuts.cut(channels, tag, [one.key for one in part])
        pairs = [
            (one, shown)
            for one, shown in zip(part, cut.shown, strict=True)
            if shown is None or not unopened_only
        ]
        if not pairs:
            return (), False
        events = _events(await cuts.journaled(channels, tag, cut.last)) if cut.entries else []
        due = await asyncio.to_thread(_due, engine, [one for one, _ in pairs], events)
        # What was settled after the cut and is in the ledger already would be counted twice.
        if not at_rest and await cuts.moved_since(channels, tag, cut):
            return None
        corrections = corrections_of(pairs, due)
        adopted = adoption.due([one for one, shown in pairs if shown is None], living)
        if corrections and not await cuts.correct(channels, tag, cut.token, corrections, adopted):
            return None
    return tuple(one.key for one in corrections), bool(adopted)


async def recount_held(
    channels: Channels,
    tag: str,
    wanted: Sequence[Counted],
    living: Callable[[], Awaitable[Mapping[str, Hold]]],
) -> None:
    """Brings what is held on these accounts to what the holds that are there amount to. For a tag
    that admits nothing: holds end meanwhile, none are placed. Raises StoreUnavailable.
    """
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        for _ in range(_HELD_TRIES):
            before = await living()
            cut = await cuts.cut(channels, tag, [one.key for one in part])
            if (await living()).keys() != before.keys():
                continue  # one ended: on which side of the cut cannot be told
            due = held(before.values())
            corrections = [
                Correction(one.key, 0, missing, one.window.end_us // 1000)
                for one, shown in zip(part, cut.shown, strict=True)
                if shown and (missing := due.get(one.key, 0) - shown.held)
            ]
            if not corrections or await cuts.correct(channels, tag, cut.token, corrections):
                break
        else:
            raise StoreUnavailable("holds end too fast for what they hold to be counted; try again")


def _due(engine: Engine, wanted: Sequence[Counted], events: Sequence[UsageEvent]) -> dict[str, int]:
    asked = {one.key: asked_of(one) for one in wanted}
    found = spent.totals(engine, set(asked.values()), events)
    return {key: found[one] for key, one in asked.items()}


def asked_of(one: Counted) -> spent.Asked:
    """The figure of the ledger that the account must show."""
    span = (one.window.start_us, one.window.end_us)
    return spent.Asked(one.tenant_id, one.scope_kind, one.scope_id, span, one.unit == TOKENS)


def corrections_of(
    pairs: Iterable[tuple[Counted, Balance | None]], due: dict[str, int]
) -> list[Correction]:
    """What is missing on those accounts that show something else than is `due`."""
    found = []
    for one, shown in pairs:
        missing = due[one.key] - (shown.posted if shown is not None else 0)
        if missing or shown is None:
            found.append(Correction(one.key, missing, 0, one.window.end_us // 1000))
    return found


def _events(packed: Iterable[bytes]) -> list[UsageEvent]:
    found = []
    for one in packed:
        with suppress(msgspec.DecodeError):  # the drain sets it aside, and says so
            found.append(DECODER.decode(one))
    return found
