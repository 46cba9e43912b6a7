"""What each attempt used, by whose figures; then spool, counters and journal, in that order.

The spool comes first: from then on a crash can only leave us over-held for a while, never
under-billed.
"""

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Final

from msgspec.structs import replace

from billing.meters import Provenance
from billing.usage import ENCODER, UsageEvent
from gateway.dataplane.count import Calibration, Tokeniser
from gateway.dataplane.decisions import Decisions
from gateway.dataplane.events import event
from gateway.dataplane.figures import Figures, at_once, count
from gateway.dataplane.flow import Attempt, Flow
from gateway.dataplane.lease import Spend
from gateway.failpoints import failpoint
from gateway.stores.redis.holds import HoldStore, Settlement, StoreUnavailable
from gateway.stores.spool import Spool, SpoolUnavailable

# By name: a member of an enumeration is looked up the slow way each time.
_REPORTED: Final = Provenance.REPORTED


class Settler:
    """Ends holds. What the store cannot take now waits here; the spool has it on disk already."""

    def __init__(
        self,
        holds: HoldStore,
        spool: Spool,
        tokeniser: Tokeniser,
        calibration: Calibration,
        decisions: Decisions,
    ) -> None:
        self._holds = holds
        self._spool = spool
        self._tokeniser = tokeniser
        self._decisions = decisions
        self._calibration = calibration
        # Not confirmed by the store; safe to send again. By tag: each shard fails by itself.
        self._unconfirmed: dict[str, deque[Settlement]] = {}
        self._spends: dict[str, Spend] = {}  # of leases, by request: told when it is confirmed

    @property
    def waiting(self) -> int:
        """Settlements that the store has not confirmed."""
        return sum(map(len, self._unconfirmed.values()))

    async def settle(self, flow: Flow) -> None:
        """Every attempt that may have reached a backend becomes one event; the hold ends either
        way. Cancelling the caller changes nothing: what must be counted first is shielded, the rest
        happens before the first wait.
        """
        levels, granted = flow.levels, flow.granted
        if levels is None or granted is None:
            return
        failpoint("settle.begins")
        if not flow.dispatched:
            await self._release(flow, levels.tag)
            return
        if flow.chunks and flow.route is not None:  # the next stream may be cut before it tells
            self._tokeniser.expect(flow.route.model.encoding)
        found: list[tuple[Attempt, Figures | None]] = []
        known: list[tuple[Attempt, Figures]] = []
        for attempt in flow.attempts:
            if attempt.sent:
                figures = at_once(flow, attempt)
                found.append((attempt, figures))
                if figures is not None:
                    known.append((attempt, figures))
        if len(known) == len(found):
            await self._close(flow, levels.tag, known)
        else:
            await asyncio.shield(self._count_and_close(flow, levels.tag, found))

    async def _count_and_close(
        self, flow: Flow, tag: str, found: list[tuple[Attempt, Figures | None]]
    ) -> None:
        known = [(a, figures or await count(flow, a, self._tokeniser)) for a, figures in found]
        failpoint("settle.counted")
        await self._close(flow, tag, known)

    def _close(
        self, flow: Flow, tag: str, known: list[tuple[Attempt, Figures]]
    ) -> asyncio.Future[bool]:
        """Writes and sends everything; the future is the store's word on the hold."""
        events = [event(flow, attempt, figures) for attempt, figures in known]
        last = flow.winner or next(a for a in reversed(flow.attempts) if a.sent)
        closing = events[-1]
        for one in events:
            if one.attempt == last.number:
                closing = one
        if closing.provenance is _REPORTED and flow.ask is not None:
            self._calibration.learn(flow.ask.model, len(flow.body), closing.usage.all_input)
        flow.meters, flow.provenance = closing.usage, closing.provenance
        flow.charge_picos, flow.reasoning = closing.charge_picos, closing.reasoning
        if flow.spend is not None:
            flow.spend.ended(closing.counter_nanos)
        closing = self._with_decision(flow, closing)
        for lost in events:
            if lost.attempt != closing.attempt:
                # No hold bears this id, so the store writes the journal entry and touches no
                # counter.
                alone = replace(lost, decision=b"")
                self._post(flow, tag, alone, lost.event_id, 0, 0, ())
        tokens = closing.usage.total if last.won else 0
        return self._post(
            flow,
            tag,
            closing,
            flow.arrival.request_id,
            closing.counter_nanos,
            tokens,
            self._corrections(flow, tokens),
        )

    def _with_decision(self, flow: Flow, closing: UsageEvent) -> UsageEvent:
        """One event of a request bears its decision: the one that ends its hold."""
        standing = self._decisions.standing(flow)
        if standing or closing.decision is not flow.decision:
            return replace(closing, decision=flow.decision, standing=standing)
        return closing

    async def retry_waiting(self) -> None:
        """Sends again what the store had not confirmed: of each tag the oldest first, up to its
        first failure. A shard that is down keeps no other's back.
        """
        await asyncio.gather(*(self._retry(tag, of) for tag, of in self._unconfirmed.items()))

    async def _retry(self, tag: str, waiting: deque[Settlement]) -> None:
        while waiting:
            first = waiting[0]
            try:
                await self._holds.settle(tag, first)
            except StoreUnavailable:
                return
            failpoint("settle.resent")
            if waiting and waiting[0] is first:
                waiting.popleft()
                self._confirmed(first)

    def _post(
        self,
        flow: Flow,
        tag: str,
        row: UsageEvent,
        hold_id: str,
        money: int,
        tokens: int,
        corrections: tuple[tuple[str, int], ...],
    ) -> asyncio.Future[bool]:
        unprocessed = flow.ticket is not None and flow.unprocessed
        packed = ENCODER.encode(row)
        closes = hold_id == flow.arrival.request_id
        spend = flow.spend if closes else None
        unheld, leases = flow.unheld if closes else (), spend.ids if spend is not None else ()
        try:  # noqa: SIM105 - the context would cost half of what the record does
            self._spool.outcome(flow.arrival.request_id, packed, flow.unheld, leases)
        except SpoolUnavailable:
            pass  # the journal below is the other copy
        failpoint("settle.spooled")
        settlement = Settlement(
            hold_id,
            money,
            tokens,
            corrections,
            packed,
            unprocessed=unprocessed,
            unheld=unheld,
            leases=leases,
        )
        if spend is not None:
            self._spends[hold_id] = spend
        told = asyncio.get_running_loop().create_future()
        self._holds.settling(tag, settlement).add_done_callback(
            partial(self._answered, told, tag, settlement, row.standing)
        )
        return told

    def _answered(
        self,
        told: asyncio.Future[bool],
        tag: str,
        sent: Settlement,
        standing: bytes,
        answer: asyncio.Future[bool],
    ) -> None:
        """An outcome that is not known is sent again later; a settlement may be sent twice."""
        failpoint("settle.answered")
        found = not answer.cancelled() and answer.exception() is None
        if not found:
            self._unconfirmed.setdefault(tag, deque()).append(sent)
        else:
            self._confirmed(sent)
            if standing:
                self._decisions.told(standing)
        if not told.done():
            told.set_result(found)

    def _confirmed(self, done: Settlement) -> None:
        spend = self._spends.pop(done.hold_id, None) if done.leases else None
        if spend is not None:
            spend.settled()

    async def _release(self, flow: Flow, tag: str) -> None:
        with suppress(SpoolUnavailable):  # an intent alone is released by the next start anyway
            self._spool.closed(flow.arrival.request_id)
        if flow.spend is not None:
            flow.spend.undo()
        failpoint("release.spooled")
        with suppress(StoreUnavailable):  # owed then, and paid when the store is back
            await self._holds.release(tag, flow.arrival.request_id, self._corrections(flow, 0))
        failpoint("release.answered")

    def _corrections(self, flow: Flow, tokens: int) -> tuple[tuple[str, int], ...]:
        """The per-minute token limits took an estimate; this is the difference to what was used."""
        levels = flow.levels
        if levels is None or not levels.tokens or tokens == flow.estimated_tokens:
            return ()
        taken = flow.estimated_tokens
        return tuple([(limit.key, limit.further_us(taken, tokens)) for limit in levels.tokens])
