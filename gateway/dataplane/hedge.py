"""A second backend beside a slow first one: both are waited for until one begins its answer, and
the other is let go. Off unless a policy says after how long, and how much of it there may be.

`flow.attempts` ends with the attempt that counts: the one that is waited for first, then the one
that answers. It alone can be charged (L5); the other is a row of cost. Both are on the plan, so
both have passed every rule (L8).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from gateway import clock
from gateway.backends.answer import Answer
from gateway.backends.failures import TransportError
from gateway.backends.health import Backends, Outcome
from gateway.dataplane.desk import Turn
from gateway.dataplane.flow import Attempt, Flow
from gateway.dataplane.turns import Turns, claim_of
from gateway.failpoints import failpoint
from gateway.stores.spool import Spool, SpoolUnavailable
from policies import facts
from policies.candidates import Candidate
from policies.cost import expected_cost_picos
from policies.decision import Deny
from policies.failover import Attempts
from policies.hedging import HedgeShare
from policies.rank import is_saturated

_MOST_SHARES: Final = 10_000  # forgotten together: whoever comes next has saved nothing yet
_MOST_HEARD_BYTES: Final = 16 * 1024 * 1024

_LOG: Final = logging.getLogger(__name__)

Try = Callable[[Flow, Attempt], Awaitable[Answer | Deny]]
Lane = asyncio.Task[Answer | Deny]


class Hedges:
    """Of one process: what each key may hedge of each model."""

    def __init__(self, backends: Backends, spool: Spool, turns: Turns) -> None:
        self.backends = backends
        self.spool = spool
        self.turns = turns
        self._shares: dict[tuple[str, str], HedgeShare] = {}

    def of(self, flow: Flow, attempts: Attempts, tried: Try) -> "Hedge | None":
        """None: the first backend is waited for, however long it takes. `tried` makes an attempt,
        up to the first of its answer.
        """
        route, ask, principal = flow.route, flow.ask, flow.principal
        if route is None or ask is None or principal is None:
            raise RuntimeError("a hedge before the route")
        policy, first = route.policy, attempts.current
        if policy.hedge_after_ms is None or not policy.hedge_percent:
            return None
        if attempts.next is None:
            if not attempts.at_the_end:
                flow.decision = facts.unhedged(flow.decision, "resting")
            return None
        share = self._share(principal.key.id, ask.model)
        share.request(policy.hedge_percent, expected_cost_picos(first, ask))
        return Hedge(self, flow, attempts, share, tried)

    def _share(self, key_id: str, model: str) -> HedgeShare:
        share = self._shares.get((key_id, model))
        if share is None:
            if len(self._shares) >= _MOST_SHARES:
                self._shares.clear()
            share = self._shares[key_id, model] = HedgeShare()
        return share


class Hedge:
    """One request's. At most one attempt of it gets another one beside it."""

    __slots__ = ("_attempts", "_flow", "_lanes", "_of", "_share", "_try", "_used")

    def __init__(
        self, of: Hedges, flow: Flow, attempts: Attempts, share: HedgeShare, tried: Try
    ) -> None:
        self._of = of
        self._flow = flow
        self._attempts = attempts
        self._share = share
        self._try = tried
        self._used = False
        self._lanes: dict[Lane, Attempt] = {}  # that are waited for, in the order of the plan

    async def race(self, first: Attempt) -> Answer | Deny:
        """The answer of whoever begins first, or why there is none. The attempt it speaks of is the
        last of the flow. Cancelled or not, it leaves neither a connection nor a place behind.
        """
        route = self._flow.route
        after_ms = route.policy.hedge_after_ms if route is not None else None
        if self._used or after_ms is None:
            return await self._try(self._flow, first)
        self._begin(first)
        try:
            done, _ = await asyncio.wait(self._lanes, timeout=after_ms / 1000)
            if not done:
                await self._hedge()
            return await self._first()
        except BaseException:
            under_way = [attempt for attempt in self._lanes.values() if attempt.sent]
            if under_way:  # nobody waits any more: the one that was waited for first counts
                _put_last(self._flow, under_way[0])
            raise
        finally:
            self._let_go()

    def _begin(self, attempt: Attempt) -> None:
        self._lanes[asyncio.ensure_future(self._try(self._flow, attempt))] = attempt

    async def _hedge(self) -> None:
        """Asks the next backend of the plan too, where it is there and worth its price."""
        second, now_us = self._attempts.next, clock.monotonic_us()
        why_not = self._against(second, now_us)
        turn: Turn | None = None
        if not why_not and second is not None and second.max_concurrency is not None:
            turn = await self._turn(second)
            if turn is None:  # who waits there has no other backend that is at work for it
                why_not = "no_slot"
        if second is None or why_not:
            self._flow.decision = facts.unhedged(self._flow.decision, why_not)
            return
        self._start(second, turn, now_us)

    def _against(self, second: Candidate | None, now_us: int) -> str:
        """A word of `hedging.WHY_NOT`; empty: nothing is."""
        flow = self._flow
        if flow.left:
            return "client_left"
        if second is None or flow.ask is None:
            return "tried" if self._attempts.at_the_end else "resting"
        seen = self._of.backends.live(now_us).get((second.backend_id, second.upstream_model))
        if seen is not None and not seen.available:
            return "unavailable"
        if seen is not None and is_saturated(second, seen):
            return "full"
        return "" if self._share.covers(expected_cost_picos(second, flow.ask)) else "share_spent"

    def _start(self, second: Candidate, turn: Turn | None, now_us: int) -> None:
        flow, attempts, ask, route = self._flow, self._attempts, self._flow.ask, self._flow.route
        if ask is None or route is None:
            raise RuntimeError("a hedge before the route")
        if attempts.beside(now_us) is not second:
            if turn is not None:
                turn.over(0)
            flow.decision = facts.unhedged(flow.decision, "budget_spent")
            return
        self._share.take(expected_cost_picos(second, ask))
        self._used = True
        flow.decision = facts.hedged(flow.decision, attempts.number)
        way = route.ways[second.backend_id, second.upstream_model]
        attempt = Attempt(attempts.number, way, flow.arrival.now_us(), turn=turn, beside=True)
        flow.attempts.insert(-1, attempt)
        failpoint("hedge.begins")
        self._begin(attempt)

    async def _turn(self, second: Candidate) -> Turn | None:
        """A slot there, where one is free. Where the store may have one for us it is asked, for as
        long as nobody has answered.
        """
        turns, claim = self._of.turns, claim_of(self._flow)
        turn = turns.at_once(second, claim)
        if turn is not None or (asked := turns.asked(second)) is None:
            return turn
        awaited: list[asyncio.Future[Any]] = [*self._lanes, asked]
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if self._flow.left or any(lane.done() for lane in self._lanes):
            return None
        return turns.at_once(second, claim)

    async def _first(self) -> Answer | Deny:
        """Whoever fails leaves the race to the other. When all have failed, the one stands that
        forbids another try, if any does.
        """
        failed: list[tuple[Attempt, Deny]] = []
        while self._lanes:
            done, _ = await asyncio.wait(self._lanes, return_when=asyncio.FIRST_COMPLETED)
            for lane in [lane for lane in self._lanes if lane in done]:
                attempt = self._lanes.pop(lane)
                answer = lane.result()
                if isinstance(answer, Answer):
                    await self._decide(attempt)
                    return answer
                failed.append((attempt, answer))
                for other in self._lanes.values():
                    _put_last(self._flow, other)
        final = [one for one in failed if not one[0].ending.provably_unprocessed]
        attempt, deny = (final or failed)[-1]
        _put_last(self._flow, attempt)
        return deny

    async def _decide(self, winner: Attempt) -> None:
        """From here on only this attempt can be charged, whatever happens to this process."""
        if not self._used:
            return
        flow, now_us = self._flow, self._flow.arrival.now_us()
        _put_last(flow, winner)
        with suppress(SpoolUnavailable):  # then a dead worker's bill names the other one
            self._of.spool.checkpoint(flow.arrival.request_id, winner.number, 0, now_us)
        for lane, loser in self._lanes.items():
            if lane.done() and not lane.cancelled() and lane.exception() is None:
                await _hear_out(flow, loser, lane.result())
            elif loser.flight is not None and loser.number < winner.number and _streams(flow):
                # Its silence is the least that its first token takes; unsaid, it would look idle.
                loser.flight.first_byte(clock.monotonic_us())
            loser.land(Outcome.ABANDONED, now_us)
        failpoint("hedge.decided")

    def _let_go(self) -> None:
        """None of them runs on: what a cancelled one was waiting for raises, and it ends."""
        for lane in self._lanes:
            lane.cancel()
            lane.add_done_callback(_abandoned)
        self._lanes = {}


async def _hear_out(flow: Flow, loser: Attempt, answer: Answer | Deny) -> None:
    """What came whole in the same moment tells what it cost."""
    if not isinstance(answer, Answer) or not answer.complete or _streams(flow):
        return
    with suppress(TransportError):  # nothing is waited for: all of it is here
        read = loser.way.dialect.read_answer(await answer.read(_MOST_HEARD_BYTES))
        loser.reported, loser.complete = read.reported, read.readable
        loser.told_tier = read.service_tier


def _streams(flow: Flow) -> bool:
    return flow.first_slice > 0 or (flow.envelope is not None and bool(flow.envelope.stream))


def _put_last(flow: Flow, attempt: Attempt) -> None:
    if flow.attempts[-1] is not attempt:
        flow.attempts = [each for each in flow.attempts if each is not attempt] + [attempt]


def _abandoned(lane: Lane) -> None:
    """Its owner was there first, or is gone."""
    if lane.cancelled():
        return
    fault = lane.exception()
    if fault is not None:
        _LOG.error("a hedged attempt failed inside the gateway", exc_info=fault)
    elif isinstance(answer := lane.result(), Answer):
        answer.abort()
