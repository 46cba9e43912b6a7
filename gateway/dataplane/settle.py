"""What each attempt used, by whose figures; then spool, counters and journal, in that order.

The spool comes first: from then on a crash can only leave us over-held for a while, never
under-billed.
"""

import asyncio
from contextlib import suppress
from functools import partial

import msgspec

from billing.meters import Meters, Provenance
from billing.usage import ENCODER, UsageEvent
from gateway.dataplane.count import Calibration, Tokeniser, count_prompt
from gateway.dataplane.envelope import EMBEDDINGS
from gateway.dataplane.events import NOTHING, event
from gateway.dataplane.flow import Attempt, Flow
from gateway.stores.redis.holds import HoldStore, Settlement, StoreUnavailable
from gateway.stores.spool import Spool, SpoolUnavailable


class Unsettled(msgspec.Struct, frozen=True):
    """A settlement that the store has not confirmed; it is safe to send again."""

    tag: str
    settlement: Settlement


class Settler:
    """Ends holds. What the store cannot take now waits here; the spool has it on disk already."""

    def __init__(
        self, holds: HoldStore, spool: Spool, tokeniser: Tokeniser, calibration: Calibration
    ) -> None:
        self._holds = holds
        self._spool = spool
        self._tokeniser = tokeniser
        self._calibration = calibration
        self.waiting: list[Unsettled] = []

    async def settle(self, flow: Flow) -> None:
        """Every attempt that may have reached a backend becomes one event; the hold ends either
        way. Cancelling the caller changes nothing: what must be counted first is shielded, the rest
        happens before the first wait.
        """
        levels, granted = flow.levels, flow.granted
        if levels is None or granted is None:
            return
        if not flow.dispatched:
            await self._release(flow, levels.tag)
            return
        winner = flow.winner
        if winner is None or _believed(flow, winner) is not None:
            await self._close(flow, levels.tag, None)
        else:
            await asyncio.shield(self._count_and_close(flow, levels.tag, winner))

    async def _count_and_close(self, flow: Flow, tag: str, winner: Attempt) -> None:
        await self._close(flow, tag, await self._count(flow, winner))

    def _close(self, flow: Flow, tag: str, counted: Meters | None) -> asyncio.Future[bool]:
        """Writes and sends everything; the future is the store's word on the hold."""
        events = [self._event(flow, a, counted) for a in flow.attempts if a.sent]
        last = flow.winner or next(a for a in reversed(flow.attempts) if a.sent)
        closing = events[-1]
        for one in events:
            if one.attempt == last.number:
                closing = one
        flow.meters, flow.provenance = closing.usage, closing.provenance
        flow.charge_picos, flow.reasoning = closing.charge_picos, closing.reasoning
        for lost in events:
            if lost is not closing:
                # No hold bears this id, so the store writes the journal entry and touches no
                # counter.
                self._post(flow, tag, lost, lost.event_id, 0, 0, ())
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

    async def retry_waiting(self) -> None:
        """Sends again what the store had not confirmed, oldest first; stops at the first
        failure.
        """
        while self.waiting:
            first = self.waiting[0]
            try:
                await self._holds.settle(first.tag, first.settlement)
            except StoreUnavailable:
                return
            if self.waiting and self.waiting[0] is first:
                self.waiting.pop(0)

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
        packed = ENCODER.encode(row)
        with suppress(SpoolUnavailable):  # the journal below is the other copy
            self._spool.outcome(flow.arrival.request_id, packed)
        settlement = Settlement(hold_id, money, tokens, corrections, packed)
        told = asyncio.get_running_loop().create_future()
        self._holds.settling(tag, settlement).add_done_callback(
            partial(self._answered, told, Unsettled(tag, settlement))
        )
        return told

    def _answered(
        self, told: asyncio.Future[bool], sent: Unsettled, answer: asyncio.Future[bool]
    ) -> None:
        """An outcome that is not known is sent again later; a settlement may be sent twice."""
        found = not answer.cancelled() and answer.exception() is None
        if not found:
            self.waiting.append(sent)
        if not told.done():
            told.set_result(found)

    async def _release(self, flow: Flow, tag: str) -> None:
        with suppress(SpoolUnavailable):  # an intent alone is released by the next start anyway
            self._spool.closed(flow.arrival.request_id)
        with suppress(StoreUnavailable):  # owed then, and paid when the store is back
            await self._holds.release(tag, flow.arrival.request_id, self._corrections(flow, 0))

    def _corrections(self, flow: Flow, tokens: int) -> tuple[tuple[str, int], ...]:
        """The per-minute token limits took an estimate; this is the difference to what was used."""
        levels = flow.levels
        if levels is None or not levels.tokens or tokens == flow.estimated_tokens:
            return ()
        return tuple(
            (limit.key, limit.advance_us(tokens) - limit.advance_us(flow.estimated_tokens))
            for limit in levels.tokens
        )

    def _event(self, flow: Flow, attempt: Attempt, counted: Meters | None) -> UsageEvent:
        if not attempt.won:
            # A backend that answered with an error did no work that we know of; one that fell
            # silent may have read the prompt.
            silent = not attempt.status or attempt.status == 200
            usage = Meters(input=_input_estimate(flow)) if silent else NOTHING
            provenance = Provenance.ESTIMATED if silent else Provenance.COUNTED
            return event(flow, attempt, usage, provenance, counted=None)
        believed = _believed(flow, attempt)
        if believed is not None:
            if flow.ask is not None:
                self._calibration.learn(flow.ask.model, len(flow.body), believed.all_input)
            return event(flow, attempt, believed, Provenance.REPORTED, counted=None)
        own = counted or NOTHING
        generated = attempt.complete or bool(attempt.content_us)
        provenance = Provenance.COUNTED if generated else Provenance.ESTIMATED
        return event(flow, attempt, own, provenance, counted=own)

    async def _count(self, flow: Flow, attempt: Attempt) -> Meters:
        route, envelope = flow.route, flow.envelope
        if route is None or envelope is None:
            raise RuntimeError("an attempt that was never routed")
        encoding = route.model.encoding
        prompt = await count_prompt(
            self._tokeniser, encoding, envelope, flow.operation, _input_estimate(flow)
        )
        output = 0
        if attempt.meter is not None:
            output = await self._tokeniser.count(encoding, [attempt.meter.generated_text()])
        elif attempt.plain_text:
            output = await self._tokeniser.count(encoding, [attempt.plain_text])
        return Meters(input=prompt, output=output)


def _believed(flow: Flow, attempt: Attempt) -> Meters | None:
    """What the backend reported, if it can be true; None: we have to count."""
    reported = attempt.reported
    if reported is None:
        return None
    meters = reported.meters
    if meters.output and flow.operation == EMBEDDINGS:
        # Vectors are no tokens: a figure here would have no price.
        meters = msgspec.structs.replace(meters, output=0)
    return meters if plausible(flow, attempt, meters) else None


def plausible(flow: Flow, attempt: Attempt, meters: Meters) -> bool:
    """Whether a backend's figures can be true. What cannot is set aside and our own count is
    billed: an explicit zero for a prompt that was not empty, text that cost no tokens, more than
    fits.
    """
    quote, route = flow.quote, flow.route
    if quote is None or route is None:
        return False
    window = route.model.context_window or 0
    most_input = max(window * quote.choices, 2 * quote.input_bound + 1024)
    most_output = max(window, 10 * quote.wanted, 100_000) * quote.choices
    if (
        min(msgspec.structs.astuple(meters)) < 0
        or not 0 < meters.all_input <= most_input
        or meters.output > most_output
    ):
        return False
    delivered = bool(attempt.plain_text or (attempt.meter and attempt.meter.text_bytes))
    return meters.output > 0 or not delivered


def _input_estimate(flow: Flow) -> int:
    return flow.ask.input_estimate if flow.ask is not None else 0
