"""Living holds on accounts that are opened while they live.

A budget that is made, or gets another period, or days that begin elsewhere, counts what is under
way: a hold of its window and of its scope stands on it as if the budget had been there at the
admission, and settles on it. That it is there already is not refused, whatever the cap; what its
stream takes from then on is bounded by the new accounts as by its own.
"""

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from billing.usage import DECODER, UsageEvent
from gateway.stores.counted import Counted
from gateway.stores.redis import keys, wire
from gateway.stores.redis.channel import Channels
from policies.budgets import MAX_STOOD_ON, Account, Hold
from policies.recount import Adoption

_AT_ONCE: Final = 256

_LOG: Final = logging.getLogger(__name__)


async def living(channels: Channels, tag: str) -> list[Hold]:
    """Every hold of the tag. A record that a newer release wrote is left out: its accounts cannot
    be known. Raises StoreUnavailable.
    """
    ask = channels.of(tag).ask
    ids = [hold_id.decode() for hold_id in await ask("ZRANGE", keys.holds(tag), 0, -1)]
    found: list[Hold] = []
    for start in range(0, len(ids), _AT_ONCE):
        part = [keys.hold(tag, hold_id) for hold_id in ids[start : start + _AT_ONCE]]
        for record in await ask("MGET", *part):
            with suppress(wire.RecordError):
                hold = wire.hold(record) if record else None
                if hold is not None:
                    found.append(hold)
    return found


def due(opened: Iterable[Counted], holds: Iterable[Hold]) -> list[Adoption]:
    """Which of these holds belong on which of the accounts, by path and time of their admission.
    One that stands on MAX_STOOD_ON takes no more.
    """
    by_scope: dict[tuple[str, str, str], list[Counted]] = {}
    for one in opened:
        by_scope.setdefault((one.tenant_id, one.scope_kind, one.scope_id), []).append(one)
    found = []
    for hold in holds if by_scope else ():
        with suppress(msgspec.DecodeError):  # nobody could tell whose it is
            template = DECODER.decode(hold.admission.meta)
            more = [_account(one) for one in _belongs_on(hold, template, by_scope)]
            room = MAX_STOOD_ON - len(hold.admission.accounts)
            if len(more) > room:
                _LOG.error("hold %s stands on too many accounts", hold.admission.hold_id)
            if more[:room]:
                found.append(Adoption(hold, tuple(more[:room])))
    return found


def _belongs_on(
    hold: Hold, template: UsageEvent, by_scope: dict[tuple[str, str, str], list[Counted]]
) -> Iterable[Counted]:
    named = {account.key for account in hold.admission.accounts}
    admitted_us = hold.admitted_at_ms * 1000
    for scope in _path(template):
        for one in by_scope.get(scope, ()):
            in_window = one.window.start_us <= admitted_us < one.window.end_us
            if in_window and one.key not in named:
                yield one


def _path(template: UsageEvent) -> Sequence[tuple[str, str, str]]:
    tenant_id = template.tenant_id
    teams = [(tenant_id, "team", team_id) for team_id in template.team_path]
    return [(tenant_id, "tenant", tenant_id), *teams, (tenant_id, "key", template.key_id)]


def _account(one: Counted) -> Account:
    start_ms, end_ms = one.window.start_us // 1000, one.window.end_us // 1000
    return Account(one.key, one.cap, start_ms, end_ms, one.unit, one.scope_id)
