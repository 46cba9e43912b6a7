"""Requests that are sent a second time, to another model, for somebody who tries that one out.

A shadow begins when the backend of the request it belongs to has answered, in a task of its own: a
flow with its own hold, attempt and usage row, paid for by the experiment's key and never by whoever
asked. It keeps to all that is required of that request as well (L8). It is sent once or not at all:
it stands in no queue, has no lease, and is the first to go when there is much to do.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from litestar.types import Message
from msgspec.structs import replace

from gateway import clock, ids
from gateway.backends.answer import Answer
from gateway.backends.health import Backends
from gateway.dataplane.branching import GONE, branch, payer_of, shadow_route
from gateway.dataplane.desk import Turn
from gateway.dataplane.flow import Flow
from gateway.dataplane.forward import Forwarder
from gateway.dataplane.reading import LARGE_BYTES, Reading
from gateway.dataplane.relay import relay_plain, relay_stream
from gateway.dataplane.snapshot import Route, Snapshot
from gateway.dataplane.turns import claim_of
from gateway.errors import render_openai
from gateway.failpoints import failpoint
from gateway.stores.redis.holds import Replay
from gateway.stores.spool import Spool
from gateway.telemetry.metrics import Counter
from gateway.telemetry.record import TraceIds
from policies import facts
from policies.candidates import Candidate
from policies.compile import EffectivePolicy, required
from policies.decision import Deny
from policies.panel import Panel
from policies.rank import is_saturated
from policies.shadow import Shadow

ROUTE: Final = "shadow"  # in the place of the path that a client would have used
_MOST_ROUTES: Final = 256  # remembered at a time: a bound, there are a few

_LOG: Final = logging.getLogger(__name__)


class Steps(NamedTuple):
    """Of the walk of a request, those that a shadow takes like any other."""

    snapshot: Callable[[], Snapshot]
    trace: Callable[[bytes], TraceIds]
    understand: Callable[[Flow, Reading, Snapshot], Deny | None]
    plan: Callable[[Flow, str], Deny | None]
    admit: Callable[[Flow], Awaitable[Deny | Replay | None]]
    refused: Callable[[Flow, Deny], None]
    track: Callable[[Flow, asyncio.Task[None] | None], None]
    end: Callable[[Flow], Awaitable[None]]


class _Known(NamedTuple):
    """A route, with what it was made of."""

    paying: Panel
    asking: EffectivePolicy
    asked: EffectivePolicy
    route: Route


class _Aim(NamedTuple):
    """What one is sent for."""

    shadow: Shadow
    asked: EffectivePolicy  # of the model that was asked for
    model: str  # that was asked for
    asker_id: str  # whose key it was


class Shadows:
    """Those of one worker, so many at a time at most."""

    def __init__(
        self,
        steps: Steps,
        forwarder: Forwarder,
        backends: Backends,
        spool: Spool,
        *,
        most: int,
        ended: Counter,
    ) -> None:
        """`ended` counts them by what became of them."""
        self.under_way: dict[asyncio.Task[None], Flow] = {}
        self._steps = steps
        self._forwarder = forwarder
        self._backends = backends
        self._spool = spool
        self._most = most
        self._ended = ended
        self._revision = -1
        self._routes: dict[tuple[int, int, int], _Known] = {}

    def stop(self) -> None:
        """None begins from here on: the worker is about to end."""
        self._most = 0

    def begin(self, live: Flow, reading: Reading, asked: EffectivePolicy) -> None:
        """The shadow of a request that is being answered, where `asked`, the policy of the model
        that was asked for, has one for it. Waits for nothing.
        """
        principal, experiment = live.principal, asked.experiment
        if principal is None or experiment is None:
            return
        shadow = experiment.shadowed(principal.key.id, live.tags)
        served = live.envelope.model if live.envelope is not None else ""
        if shadow is None or shadow.model == served:
            return
        if len(self.under_way) >= self._most or len(live.body) > LARGE_BYTES:
            self._ended.child("shed").inc()
            return
        flow = self._flow(live, experiment.name)
        live.decision = facts.shadowed(live.decision, flow.arrival.request_id)
        instead = replace(reading, envelope=replace(reading.envelope, model=shadow.model))
        aim = _Aim(shadow, asked, reading.envelope.model, principal.key.id)
        task = asyncio.create_task(self._run(flow, instead, aim))
        self.under_way[task] = flow
        task.add_done_callback(self.under_way.pop)

    def _flow(self, live: Flow, experiment: str) -> Flow:
        arrival = replace(
            live.arrival,
            request_id=ids.new("req"),
            arrived_us=live.arrival.now_us(),
            secret=b"",
            traceparent=b"",
            explain=False,
            idempotency_key=None,
        )
        return Flow(
            arrival=arrival,
            trace=self._steps.trace(live.trace.traceparent(0)),
            operation=live.operation,
            route_path=ROUTE,
            body=live.body,
            experiment=experiment,
            shadow_of=live.arrival.request_id,
        )

    async def _run(self, flow: Flow, reading: Reading, aim: _Aim) -> None:
        """Whatever happens, what it holds ends here."""
        how = "cut"
        try:
            how = await self._walk(flow, reading, aim)
        except Exception:  # noqa: BLE001 - a bug of ours must still settle and be seen
            how = "failed"
            _LOG.exception("shadow %s failed inside the gateway", flow.arrival.request_id)
        finally:
            flow.finished_us = flow.arrival.now_us()
            self._ended.child(how).inc()
            if flow.granted is not None:
                await self._steps.end(flow)

    async def _walk(self, flow: Flow, reading: Reading, aim: _Aim) -> str:
        """As any request's, for an answer that nobody gets; what became of it."""
        failpoint("shadow.begins")
        deny: Deny | Replay | None = self._aim(flow, reading, aim)
        if deny is None:
            deny = self._steps.plan(flow, aim.model)
            flow.decision = facts.shadowing(flow.decision, flow.shadow_of)
        if deny is None and self._is_full(flow):
            return "shed"
        if deny is None:
            deny = await self._steps.admit(flow)
        if deny is not None:
            if isinstance(deny, Deny):
                self._steps.refused(flow, deny)
            return "refused"
        self._steps.track(flow, asyncio.current_task())
        failpoint("shadow.admitted")
        return await self._send(flow)

    def _aim(self, flow: Flow, reading: Reading, aim: _Aim) -> Deny | None:
        """Whose it is and where it may go: where whoever pays may send it and the request that it
        is a shadow of may go, be it for the model that was asked for or for this one.
        """
        snapshot, now_us = self._steps.snapshot(), flow.arrival.arrived_us
        asker = snapshot.holder(aim.asker_id, now_us)
        if asker is None:
            return GONE
        payer = payer_of(snapshot, asker, aim.shadow, now_us)
        if isinstance(payer, Deny):
            return payer
        flow.principal = payer
        if (deny := self._steps.understand(flow, reading, snapshot)) is not None:
            return deny
        asking = snapshot.route(asker, aim.shadow.model, now_us)
        if isinstance(asking, Deny):
            return asking
        if asking.branches is not None:
            asking = branch(asking, asking.branches, flow, reading)
        if flow.route is None:
            raise RuntimeError("a shadow before its route")
        flow.route = self._route(snapshot.revision, flow.route, asking.policy, aim.asked)
        return None

    def _route(
        self, revision: int, paying: Route, asking: EffectivePolicy, asked: EffectivePolicy
    ) -> Route:
        """Compiled for the first of its kind. What an id belongs to is kept as long as the id."""
        if revision != self._revision or len(self._routes) >= _MOST_ROUTES:
            self._revision = revision
            self._routes.clear()
        key = (id(paying.panel), id(asking), id(asked))
        known = self._routes.get(key)
        if known is None:
            route = shadow_route(paying, required(asked, asking))
            known = self._routes[key] = _Known(paying.panel, asking, asked, route)
        return known.route

    def _is_full(self, flow: Flow) -> bool:
        """Whether the best that there is for it has enough to do."""
        candidate = _first(flow)
        live = self._backends.live(clock.monotonic_us())
        seen = live.get((candidate.backend_id, candidate.upstream_model))
        return seen is not None and is_saturated(candidate, seen)

    async def _send(self, flow: Flow) -> str:
        candidate = _first(flow)
        turn = await self._turn(flow, candidate)
        if turn is None and candidate.max_concurrency is not None:
            return "shed"
        answer = await self._forwarder.once(flow, candidate, turn)
        failpoint("shadow.answered")
        if isinstance(answer, Answer):
            deny = await self._hear(flow, answer)
            failpoint("shadow.heard")
        else:
            deny, flow.end_by, flow.end_phase = answer, "upstream", "ttfb"
        if deny is not None:
            flow.deny, flow.status = deny, render_openai(deny, flow.arrival.request_id).status
            if not flow.dispatched:
                self._steps.refused(flow, deny)
        return "served" if flow.attempts[-1].complete else "failed"

    async def _turn(self, flow: Flow, candidate: Candidate) -> Turn | None:
        """A slot there, where one is free and nobody waits for it."""
        if candidate.max_concurrency is None:
            return None
        turns, claim = self._forwarder.turns, claim_of(flow)
        turn = turns.at_once(candidate, claim)
        if turn is None and (asked := turns.asked(candidate)) is not None:
            await asked
            turn = turns.at_once(candidate, claim)
        return turn

    async def _hear(self, flow: Flow, answer: Answer) -> Deny | None:
        """The answer to its end, for its figures; nothing of it is kept."""
        if flow.envelope is not None and flow.envelope.stream:
            return await relay_stream(flow, answer, _nowhere, _taken, self._spool)
        return await relay_plain(flow, answer, _nowhere, self._spool)


MakeShadows = Callable[[Steps, Forwarder, Backends, Spool], Shadows]


def _first(flow: Flow) -> Candidate:
    if flow.plan is None:
        raise RuntimeError("a shadow before its plan")
    return flow.plan.attempts[0]


async def _nowhere(_message: Message) -> None:
    """Nobody waits for it."""


def _taken(_piece: bytes) -> bool:
    return True
