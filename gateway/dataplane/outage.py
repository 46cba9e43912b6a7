"""Admission while the quota store does not answer: what the budgets on the path allow then.

`strict` refuses; `bounded` serves from leases that were granted beforehand, on all such accounts
of the path or on none (L3); `open` serves without a hold. What was served is in the spool, waits
for the store, and is posted once when that is back. Per-minute limits carry no promise of money and
have a setting of their own: each worker then lets its share of them in, or none. What a team may
spend in an hour goes by the same setting: open, it is counted afterwards.
"""

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from billing.usage import ENCODER
from gateway import clock
from gateway.dataplane.flow import Flow
from gateway.dataplane.leases import Leases
from gateway.dataplane.levels import Levels
from gateway.failpoints import failpoint
from gateway.stores.redis.holds import Granted
from gateway.stores.spool import Spool, SpoolUnavailable
from policies import limits
from policies.decision import Deny, DenyCode
from policies.limits import Gate

MOST_WAITING: Final = 50_000  # settlements of this worker: about 150 MB, minutes to hand in
_SAID_AGAIN_US: Final = 10_000_000
_RETRY_MS: Final = 2_000

_LOG: Final = logging.getLogger(__name__)


class Outage:
    """What one worker admits by itself. Makes no call, waits for nothing."""

    def __init__(
        self,
        spool: Spool,
        leases: Leases,
        waiting: Callable[[], int],
        *,
        workers: int,
        limits_open: bool,
    ) -> None:
        """`waiting`: settlements that the store has not confirmed. `workers` share a limit."""
        self.leases = leases
        # Requests, by what paid for them.
        self.admitted: dict[tuple[str, ...], int] = {("lease",): 0, ("open",): 0}
        self._spool = spool
        self._waiting = waiting
        self._workers = workers
        self._limits_open = limits_open
        self._tats_us: dict[str, int] = {}
        self._said_us = -_SAID_AGAIN_US

    def admit(self, flow: Flow) -> Deny | None:
        """As `admit`, for a request that the store gave no answer to. Sets `flow.granted`,
        `flow.unheld` and `flow.spend`; the intent is in the spool afterwards.
        """
        levels, quote, standing = flow.levels, flow.quote, flow.standing
        if levels is None or quote is None or standing is None:
            raise RuntimeError("admission before the quote")
        deny = self._refused(flow, levels)
        if deny is not None:
            return deny
        spend = self.leases.spend(standing, quote) if levels.outage == "bounded" else None
        if spend is None and levels.outage == "bounded":
            return store_down()
        now_ms = flow.admit_started_us // 1000
        request_id, meta = flow.arrival.request_id, ENCODER.encode(flow.template)
        ids = spend.ids if spend is not None else ()
        try:
            self._spool.intent(request_id, levels.tag, now_ms * 1000, meta, standing.accounts, ids)
        except SpoolUnavailable:
            if spend is not None:
                spend.undo()
            return unrecorded()
        failpoint("outage.intended")
        # Nothing was asked of a slice at a time: no store could say that the next one fits.
        flow.quote = msgspec.structs.replace(quote, first=quote.wanted)
        flow.granted = Granted(quote.wanted, 0, now_ms, (), (), duplicate=False)
        flow.unheld, flow.spend = standing.accounts, spend
        flow.admitted_us = flow.arrival.now_us()
        self.admitted[("open",) if spend is None else ("lease",)] += 1
        self._say()
        return None

    def _refused(self, flow: Flow, levels: Levels) -> Deny | None:
        bounded_hours = flow.route is not None and flow.route.policy.hour_ceilings
        limited = levels.limited or bool(bounded_hours)
        if levels.outage == "strict" or not (self._limits_open or not limited):
            return store_down()
        if flow.shadow_of:  # what is leased is for those who wait for an answer
            return store_down()
        if flow.ticket is not None:
            return Deny(
                DenyCode.QUOTA_UNAVAILABLE,
                "whether this idempotency key was used before cannot be told right now, so nothing"
                " is served; retry shortly with the same key",
                retry_after_ms=_RETRY_MS,
            )
        if self._waiting() >= MOST_WAITING:
            return unrecorded()
        return self._over_share(flow, levels)

    def _over_share(self, flow: Flow, levels: Levels) -> Deny | None:
        """Takes our share of the per-minute limits, if all of them let the request in."""
        gates = [self._share(gate) for gate in levels.gates(flow.estimated_tokens)]
        now_us, tats_us = clock.monotonic_us(), self._tats_us
        waits = [limits.wait_us(tats_us.get(gate.key, 0), gate, now_us) for gate in gates]
        longest = max(waits, default=0)
        if longest > 0:
            limit = levels.per_minute[waits.index(longest)]
            return Deny(
                DenyCode.RATE_LIMIT_EXCEEDED,
                f"{limit.label} is limited to {limit.per_minute} {limit.kind} per minute, and each"
                f" of {self._workers} workers lets its share in while they cannot count together;"
                " retry after the time in retry-after",
                retry_after_ms=-(-longest // 1000),
            )
        for gate in gates:
            tats_us[gate.key] = limits.taken(tats_us.get(gate.key, 0), gate, now_us)
        return None

    def _share(self, gate: Gate) -> Gate:
        return msgspec.structs.replace(gate, advance_us=gate.advance_us * self._workers)

    def _say(self) -> None:
        now_us = clock.monotonic_us()
        if now_us - self._said_us >= _SAID_AGAIN_US:
            _LOG.warning(
                "the quota store does not answer: requests whose budgets allow it are served"
                " from leases or without a hold; %d settlements wait",
                self._waiting(),
            )
            self._said_us = now_us


def store_down() -> Deny:
    """The budgets on the path let nobody in without the store, or nobody any more."""
    return Deny(
        DenyCode.QUOTA_UNAVAILABLE,
        "budgets cannot be checked right now, so nothing is served; retry shortly",
        retry_after_ms=_RETRY_MS,
    )


def unrecorded() -> Deny:
    """What is served has to be in the spool, or to wait for the store, and there is no room."""
    return Deny(
        DenyCode.JOURNAL_UNAVAILABLE,
        "usage cannot be recorded right now, so nothing is served; retry shortly",
        retry_after_ms=_RETRY_MS,
    )
