"""Limits taken and the hold placed on every level in one round trip; the answer is the grant."""

import asyncio
from contextlib import suppress
from typing import Final

from billing.usage import ENCODER
from gateway.dataplane.events import template
from gateway.dataplane.flow import Flow
from gateway.dataplane.idempotency import Idempotency
from gateway.dataplane.levels import Levels, Standing
from gateway.dataplane.outage import Outage, store_down, unrecorded
from gateway.dataplane.over_budget import over_budget
from gateway.failpoints import failpoint
from gateway.stores.redis.holds import (
    Admission,
    Granted,
    HoldStore,
    Refused,
    Replay,
    StoreUnavailable,
)
from gateway.stores.spool import Spool, SpoolUnavailable
from policies.decision import Deny, DenyCode

TYPICAL_OUTPUT: Final = 256  # tokens a per-minute limit is charged before the real figure is known
_ASK_AGAIN: Final = frozenset({"stale_window", "unopened", "leased"})
_STALE_TRIES: Final = 3
# Shorter than what a rebuild of lost counters waits before it asks the spools who is living.
_UNSURE_US: Final = 400_000
_OPEN_TRIES: Final = 20
_OPEN_AGAIN_S: Final = 0.05


async def admit(
    flow: Flow, holds: HoldStore, spool: Spool, idempotency: Idempotency, outage: Outage
) -> Deny | Replay | None:
    """Sets `flow.granted`, or says why not. After a grant the intent is in the spool. A Replay: the
    request's idempotency key is another's.
    """
    levels, quote, arrival = flow.levels, flow.quote, flow.arrival
    if levels is None or quote is None:
        raise RuntimeError("admission before the quote")
    if arrival.idempotency_key is not None:
        deny = await idempotency.present(flow, arrival.idempotency_key)
        if deny is not None:
            return deny
    flow.admit_started_us = now_us = arrival.now_us()
    flow.estimated_tokens = _estimate(flow)
    flow.standing = _under(flow, levels, levels.at(now_us))
    flow.template = template(flow)
    meta = ENCODER.encode(flow.template)
    failpoint("admit.begins")
    try:
        answer = await holds.admit(levels.tag, _admission(flow, holds.ttl_ms, meta, spool.name))
        if type(answer) is Refused and answer.reason in _ASK_AGAIN:
            answer, meta = await _asked_again(flow, holds, outage, answer, spool.name)
    except StoreUnavailable:
        return outage.admit(flow)
    if not isinstance(answer, Granted):
        flow.admitted_us = arrival.now_us()
        return answer if isinstance(answer, Replay) else _deny(flow, answer)
    flow.granted = answer
    if flow.standing.leased:
        outage.leases.note(levels.tag, flow.standing, answer.held_money)
    failpoint("admit.granted")
    try:
        spool.intent(arrival.request_id, levels.tag, answer.now_ms * 1000, meta)
    except SpoolUnavailable:
        await _give_back(flow, holds, levels.tag)
        return unrecorded()
    failpoint("admit.intended")
    flow.admitted_us = arrival.now_us()
    took_us = flow.admitted_us - now_us
    if took_us > holds.ttl_ms * 667 or (took_us > _UNSURE_US and not await _is_there(flow, holds)):
        # A process that was stopped for two thirds of its life may not have it any more. Asked only
        # now: from the intent on no reaper takes the silence of this spool for "never sent".
        with suppress(SpoolUnavailable):
            spool.closed(arrival.request_id)
        await _give_back(flow, holds, levels.tag)
        return store_down()
    return None


async def _asked_again(
    flow: Flow, holds: HoldStore, outage: Outage, answer: Granted | Refused | Replay, owner: str
) -> tuple[Granted | Refused | Replay, bytes]:
    """The store's last word, and the template that goes with it.

    By its clock a window has turned: the request is of that window then, whatever ours says (L9).
    An account is not open yet: whoever made the budget or a job is about to open it. Leases are in
    the way: they are asked back, and if they do not come, there is what is left beside them.
    """
    levels, standing, stale, waits, recalls, firm = flow.levels, flow.standing, 0, 0, 0, False
    if levels is None or standing is None:
        raise RuntimeError("admission without levels")
    meta = ENCODER.encode(flow.template)
    while isinstance(answer, Refused):
        if answer.reason == "stale_window" and stale < _STALE_TRIES:
            stale += 1
            flow.admit_started_us = answer.now_ms * 1000
            flow.standing = _under(flow, levels, levels.refresh(flow.admit_started_us))
            flow.template = template(flow)
            meta = ENCODER.encode(flow.template)
        elif answer.reason == "unopened" and waits < _OPEN_TRIES:
            waits += 1
            holds.needs_account(levels.tag)
            await asyncio.sleep(_OPEN_AGAIN_S)
        elif answer.reason == "leased" and not firm:
            names = [account.key for account in standing.accounts]
            firm = not await outage.leases.recall(names, recalls)
            recalls += 1
        else:
            break
        ask = _admission(flow, holds.ttl_ms, meta, owner, firm=firm)
        answer = await holds.admit(levels.tag, ask)
    return answer, meta


def _under(flow: Flow, levels: Levels, standing: Standing) -> Standing:
    """With the ceilings of the policy of this very request."""
    ceilings = flow.route.policy.hour_ceilings if flow.route is not None else ()
    return levels.under(standing, ceilings) if ceilings else standing


async def _is_there(flow: Flow, holds: HoldStore) -> bool:
    """A grant that took its time may have expired, or be of a store that has lost it since."""
    levels = flow.levels
    try:
        return levels is not None and not await holds.extend(
            levels.tag, (flow.arrival.request_id,), holds.ttl_ms
        )
    except StoreUnavailable:
        return False


async def _give_back(flow: Flow, holds: HoldStore, tag: str) -> None:
    flow.granted = None
    with suppress(StoreUnavailable):  # owed then, and paid when the store is back
        await holds.release(tag, flow.arrival.request_id)


def _admission(
    flow: Flow, ttl_ms: int, meta: bytes, owner: str, *, firm: bool = False
) -> Admission:
    levels, quote, standing, ask = flow.levels, flow.quote, flow.standing, flow.ask
    if levels is None or quote is None or standing is None or ask is None:
        raise RuntimeError("admission before the quote")
    return Admission(
        hold_id=flow.arrival.request_id,
        ttl_ms=ttl_ms,
        input_money=quote.worst.input_nanos,
        output_money=quote.worst.output_nanos_per_token,
        input_tokens=ask.input_estimate,
        wanted=quote.first,
        least=quote.least,
        choices=quote.choices,
        gates=levels.gates(flow.estimated_tokens),
        slots=levels.slots,
        accounts=standing.accounts,
        meta=meta,
        owner=owner,
        ticket=flow.ticket,
        firm=firm,
    )


def _estimate(flow: Flow) -> int:
    ask = flow.ask
    if ask is None:
        raise RuntimeError("admission before the ask")
    usual = ask.output_wanted if ask.output_wanted < TYPICAL_OUTPUT else TYPICAL_OUTPUT
    return ask.input_estimate + ask.choices * usual


def _deny(flow: Flow, refused: Refused) -> Deny:
    levels = flow.levels
    if levels is None:
        raise RuntimeError("a refusal without levels")
    match refused.reason:
        case "rate":
            limit = levels.per_minute[refused.index]
            return Deny(
                DenyCode.RATE_LIMIT_EXCEEDED,
                f"{limit.label} is limited to {limit.per_minute} {limit.kind} per minute (bursts of"
                f" {limit.burst}); retry after the time in retry-after",
                retry_after_ms=max(1, refused.retry_after_ms),
            )
        case "concurrency":
            slot, label = levels.slots[refused.index], levels.slot_labels[refused.index]
            return Deny(
                DenyCode.RATE_LIMIT_EXCEEDED,
                f"{label} is limited to {slot.maximum} requests at a time; retry when one ends",
                retry_after_ms=1_000,
            )
        case "tickets":
            return Deny(
                DenyCode.RATE_LIMIT_EXCEEDED,
                "this key has as many idempotency keys in use as it may have; wait until old ones"
                " are forgotten, or send requests that need none without",
                retry_after_ms=max(1, refused.retry_after_ms),
            )
        case "budget":
            return over_budget(flow, refused)
        case _:
            return store_down()
