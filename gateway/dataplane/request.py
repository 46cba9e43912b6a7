"""One request from first byte to settlement. Read `serve` first: it tells the whole story."""

import asyncio
import logging
from collections.abc import Awaitable
from functools import partial
from random import Random
from typing import Final

import msgspec
from litestar.types import HTTPScope, Receive, Send
from msgspec.structs import replace

from gateway import clock
from gateway.backends.answer import Answer
from gateway.backends.health import Backends, Outcome
from gateway.dataplane.admit import admit
from gateway.dataplane.affinity import Prefixes
from gateway.dataplane.afford import Means, afford
from gateway.dataplane.arrival import parse_tags, read_head
from gateway.dataplane.authenticate import authenticate
from gateway.dataplane.bodies import Bodies
from gateway.dataplane.branching import branch, policy_of, sized, vary
from gateway.dataplane.count import Calibration, size_of
from gateway.dataplane.decisions import Decisions
from gateway.dataplane.envelope import capabilities
from gateway.dataplane.flow import Flow
from gateway.dataplane.forward import Forwarder
from gateway.dataplane.hangup import HAS_IT_ALL, ClientGone, HangUp, HangUps
from gateway.dataplane.idempotency import Idempotency
from gateway.dataplane.observe import record_of
from gateway.dataplane.outage import Outage
from gateway.dataplane.outlet import at_once
from gateway.dataplane.quote import ask_of, beyond_counting, quote
from gateway.dataplane.reading import Reading
from gateway.dataplane.relay import relay_plain, relay_stream
from gateway.dataplane.replies import limit_headers, send_rendered
from gateway.dataplane.service_tiers import asked_for
from gateway.dataplane.settle import Settler
from gateway.dataplane.shadow import MakeShadows, Steps
from gateway.dataplane.sliced import Slicer
from gateway.dataplane.slices import begin, may_be_sliced
from gateway.dataplane.snapshot import Snapshot, bound_by
from gateway.dataplane.standing import Readers
from gateway.dataplane.turns import Turns
from gateway.errors import INTERNAL, RESTARTING, error_event, render_openai
from gateway.keyring import Peppers
from gateway.stores.redis.holds import HoldStore, Replay
from gateway.stores.spool import Spool
from gateway.telemetry.service import Telemetry
from policies.compile import EffectivePolicy
from policies.decision import Deny, DenyCode
from policies.route import Plan, decide

MOST_DRAINED: Final = 256

_ABANDONED: Final = Outcome.ABANDONED  # by name: a member is looked up the slow way each time
_LOG: Final = logging.getLogger(__name__)
_LEDGER_AWAY: Final = Deny(
    DenyCode.JOURNAL_UNAVAILABLE,
    "the ledger has been out of reach for as long as its operator allows, so nothing is served;"
    " retry later",
    retry_after_ms=5_000,
)


class Live(msgspec.Struct, frozen=True, gc=False):
    """A request that holds something."""

    task: asyncio.Task[None]
    flow: Flow
    tag: str


class DataPlane:
    """All that serving needs; built once by wiring. `snapshot` is swapped when configuration
    changes.
    """

    def __init__(  # noqa: PLR0913 - the one place where the parts come together
        self,
        *,
        snapshot: Snapshot,
        peppers: Peppers,
        jurisdictions: frozenset[str],
        bodies: Bodies,
        holds: HoldStore,
        readers: Readers,
        spool: Spool,
        backends: Backends,
        forwarder: Forwarder,
        settler: Settler,
        slicer: Slicer,
        decisions: Decisions,
        idempotency: Idempotency,
        outage: Outage,
        calibration: Calibration,
        prefixes: Prefixes,
        shadows: MakeShadows,
        telemetry: Telemetry,
        random: Random,
        drain_left_s: float,
    ) -> None:
        self.snapshot = snapshot
        self.peppers = peppers
        self.holds, self.readers = holds, readers
        self.in_flight: dict[str, Live] = {}  # by request id, while a hold lives
        self.overdue: frozenset[str] = frozenset()  # tags whose usage waits for the ledger too long
        self.stopping = False
        self._jurisdictions = jurisdictions
        self.bodies = bodies
        self._spool = spool
        self.backends = backends
        self._forwarder = forwarder
        self._settler = settler
        self._slicer = slicer
        self._decisions, self._idempotency = decisions, idempotency
        self._outage = outage
        self._calibration = calibration
        self._prefixes = prefixes
        self.telemetry = telemetry
        self._draw = random.getrandbits
        self._hang_ups = HangUps()
        self._drained = 0  # answers that nobody waits for any more
        self._drain_left_s = drain_left_s
        self.shadows = shadows(self._steps(), forwarder, backends, spool)

    @property
    def turns(self) -> Turns:
        """Who may go to backends that take only so many requests at a time."""
        return self._forwarder.turns

    async def serve(
        self, operation: str, path: str, scope: HTTPScope, receive: Receive, send: Send
    ) -> None:
        """Answers one inference request, whatever happens; its hold ends here, whatever happens."""
        arrival = read_head(scope)
        trace = self.telemetry.trace_ids(arrival.traceparent or None)
        flow = Flow(arrival=arrival, trace=trace, operation=operation, route_path=path)
        try:
            deny = await self._answer(flow, scope, receive, send)
            if deny is not None:
                await self._refuse(flow, deny, send)
        except ClientGone:
            flow.status, flow.end_by, flow.gone = 499, "client", True
        except asyncio.CancelledError:
            if not self.stopping:
                raise
            await self._cut_short(flow, RESTARTING, send)
        except Exception:  # noqa: BLE001 - a bug of ours must still answer, settle and be seen
            _LOG.exception("request %s failed inside the gateway", arrival.request_id)
            await self._cut_short(flow, INTERNAL, send)
        finally:
            flow.finished_us = arrival.now_us()
            if flow.left:
                self._drained -= 1
                if flow.deny is None:
                    flow.status, flow.end_by, flow.gone = 499, "client", True
            await self._end(flow)

    async def _answer(
        self, flow: Flow, scope: HTTPScope, receive: Receive, send: Send
    ) -> Deny | None:
        """The walk. None: the client has its answer, or as much of one as there is."""
        snapshot, arrival = self.snapshot, flow.arrival
        if (deny := self.bodies.unreadable(arrival)) is not None:
            return deny
        principal = authenticate(snapshot, self.peppers, arrival)
        if type(principal) is Deny:
            return principal
        flow.principal = principal
        key_id = principal.key.id
        blocked = snapshot.blocks.deny(key_id, arrival.arrived_us)
        reading = blocked or await self.bodies.read(flow, key_id, receive)
        if type(reading) is Deny:
            return reading
        if (deny := self._understand(flow, reading, snapshot)) is not None:
            return deny
        asked = policy_of(flow)
        if (deny := self._planned(flow, reading, asked)) is not None:
            return deny
        with HangUp(receive, self._hang_ups, partial(self._left, flow)) as hang_up:
            refused = await self._admit(flow)
            if refused is not None:
                refused = await afford(flow, reading, refused, self._means())
            if refused is not None:
                return await self._turn_away(flow, refused, send)
            self._track(flow, hang_up.task)
            answer = await self._forwarder.forward(flow)
            if not isinstance(answer, Answer):
                flow.end_by, flow.end_phase = _without_answer(flow)
                return answer
            if asked.experiment is not None:
                self.shadows.begin(flow, reading, asked)
            return await self._relay(flow, answer, scope, send)

    def _steps(self) -> Steps:
        return Steps(
            snapshot=lambda: self.snapshot,
            trace=self.telemetry.trace_ids,
            understand=self._understand,
            plan=self._plan,
            admit=self._admit,
            refused=lambda flow, deny: self._decisions.refused(flow, deny.code.value, self.overdue),
            track=self._track,
            end=self._end,
        )

    def _means(self) -> Means:
        return Means(
            admit=self._admit,
            replan=self._replan,
            live=lambda: self.backends.live(clock.monotonic_us()),
            draw=self._draw,
        )

    def _left(self, flow: Flow) -> float:
        """The client has: how many seconds its answer may go on for the sake of the bill. Whoever
        has the whole answer is told so by the same news.
        """
        if flow.whole:
            return HAS_IT_ALL
        attempt = flow.attempts[-1] if flow.attempts else None
        if attempt is None or not attempt.sent or self._drained >= MOST_DRAINED:
            return 0.0
        if attempt.way.backend.on_disconnect != "drain":
            return 0.0
        self._drained += 1
        flow.left = True
        return self._drain_left_s

    def _admit(self, flow: Flow) -> Awaitable[Deny | Replay | None]:
        if flow.quote is not None and flow.quote.first < flow.quote.wanted:
            return self._admit_slice(flow)
        return admit(flow, self.holds, self._spool, self._idempotency, self._outage)

    async def _admit_slice(self, flow: Flow) -> Deny | Replay | None:
        await self._slicer.ready(flow)
        return await admit(flow, self.holds, self._spool, self._idempotency, self._outage)

    def _relay(
        self, flow: Flow, answer: Answer, scope: HTTPScope, send: Send
    ) -> Awaitable[Deny | None]:
        if flow.first_slice:
            return self._slicer.relay(flow, answer, send)
        if flow.envelope is not None and flow.envelope.stream:
            return relay_stream(flow, answer, send, at_once(scope), self._spool)
        return relay_plain(flow, answer, send, self._spool)

    def _understand(self, flow: Flow, reading: Reading, snapshot: Snapshot) -> Deny | None:
        """What was read -> route, size, ask."""
        principal, arrival = flow.principal, flow.arrival
        if principal is None:
            raise RuntimeError("nobody asked")
        envelope = reading.envelope
        tags = parse_tags(arrival.tags, principal.tenant.tag_names)
        if type(tags) is Deny:
            return tags
        found = snapshot.route(principal, envelope.model, arrival.arrived_us)
        if type(found) is Deny:
            return found
        if "service_tier" in reading.fields:
            found = asked_for(found, reading.fields, flow.operation)
            if type(found) is Deny:
                return found
        flow.envelope, flow.fields, flow.tags, flow.route = envelope, reading.fields, tags, found
        needs = capabilities(envelope, reading.fields, flow.operation, reading.parts)
        estimate = self._calibration.estimate(envelope.model, len(flow.body))
        size = size_of(reading, flow.body, found.model, estimate=estimate)
        if found.branches is not None:
            flow.route = found = branch(found, found.branches, flow, reading)
        ask = ask_of(envelope, flow.operation, needs, size, found)
        if type(ask) is Deny:
            return ask
        if found.policy.affinity == "prefix":
            tenant_id, model = principal.tenant.id, envelope.model
            prefix = self._prefixes.of(reading.fields, flow.operation, tenant_id, model)
            ask = replace(ask, prefix=prefix)
        if found.sizes is not None:
            flow.route = sized(found, ask)
        flow.ask = ask
        return None

    def _planned(self, flow: Flow, reading: Reading, asked: EffectivePolicy) -> Deny | None:
        """For the model that was asked for, or the one that an experiment gives instead."""
        varied = asked.experiment
        if varied is not None and vary(flow, reading, varied, self._replan):
            return None
        return self._plan(flow)

    def _plan(self, flow: Flow, instead_of: str = "") -> Deny | None:
        """Ask -> plan and quote. Pure, but for what is seen of the backends and what is kept of the
        decision. `instead_of`: the model that was asked for, where this is another.
        """
        ask, found, principal = flow.ask, flow.route, flow.principal
        if ask is None or found is None or principal is None:
            raise RuntimeError("planning before the ask")
        now_us = clock.monotonic_us()
        if found.panel.asked:
            self.backends.watch(found.panel.asked, now_us)
        live, draw = self.backends.live(now_us), self._draw(32)
        routed = decide(found.panel, ask, live, self._jurisdictions, draw)
        self._decisions.made(flow, found, live, routed, draw, instead_of)
        if not isinstance(routed, Plan):
            return routed
        flow.plan, flow.verdicts = routed, routed.verdicts
        flow.levels = levels = self.snapshot.levels(principal)
        if levels.tag in self.overdue:
            return _LEDGER_AWAY
        in_slices = found.policy.hold == "sliced" and may_be_sliced(flow)
        flow.quote = quote(ask, routed, found, principal.tenant.currency, in_slices=in_slices)
        return beyond_counting(flow.quote)

    def _replan(
        self, flow: Flow, reading: Reading, bound: EffectivePolicy, instead_of: str
    ) -> Deny | None:
        deny = self._understand(flow, reading, self.snapshot)
        if deny is not None or flow.route is None:
            return deny
        flow.route = bound_by(flow.route, bound)
        return self._plan(flow, instead_of)

    async def _turn_away(self, flow: Flow, refused: Deny | Replay, send: Send) -> Deny | None:
        if isinstance(refused, Deny):
            return refused
        return await self._idempotency.answer(flow, refused, send)

    async def _refuse(self, flow: Flow, deny: Deny, send: Send) -> None:
        rendered = render_openai(deny, flow.arrival.request_id)
        flow.deny, flow.status = deny, rendered.status
        if not flow.dispatched:
            self._decisions.refused(flow, deny.code.value, self.overdue)
        await send_rendered(send, rendered, limit_headers(flow))

    async def _cut_short(self, flow: Flow, deny: Deny, send: Send) -> None:
        """Tells the client why nothing more comes: as an answer, or as an event of the stream."""
        if not flow.started_answer:
            await self._refuse(flow, deny, send)
            return
        flow.deny, flow.end_by = deny, "gateway"
        await send({"type": "http.response.body", "body": error_event(deny), "more_body": False})

    async def drain(self, seconds: int) -> None:
        """Waits for what is in flight; at the end of the time, cuts the rest short, each with an
        error its client can read, and waits until it is settled.
        """
        self.turns.refuse_waiting()
        self.shadows.stop()
        if left := self._under_way():
            await asyncio.wait(left, timeout=seconds)
        self.stopping = True
        left = self._under_way()
        for task, flow in left.items():
            if not flow.finished_us:  # what is being settled already needs no push
                task.cancel()
        if left:
            await asyncio.wait(left, timeout=10)

    def _under_way(self) -> dict[asyncio.Task[None], Flow]:
        held = {live.task: live.flow for live in self.in_flight.values()}
        return self.shadows.under_way | held

    def _track(self, flow: Flow, task: asyncio.Task[None] | None) -> None:
        begin(flow)
        if task is not None and flow.levels is not None:
            self.in_flight[flow.arrival.request_id] = Live(task, flow, flow.levels.tag)

    async def _end(self, flow: Flow) -> None:
        """Settles and reports. Shielded: a cancelled request still owes its bill."""
        for attempt in flow.attempts:
            attempt.land(_ABANDONED, flow.finished_us)
        if flow.gone and flow.attempts:
            flow.attempts[-1].won = flow.attempts[-1].sent
        try:
            if flow.granted is not None:
                if flow.transcript is not None:
                    self._idempotency.keep(flow)
                await self._settler.settle(flow)
        finally:
            self.in_flight.pop(flow.arrival.request_id, None)
            self.telemetry.finish(record_of(flow))


def _without_answer(flow: Flow) -> tuple[str, str]:
    """By whom and in which phase it ended that no backend has answered."""
    return ("upstream", "ttfb") if flow.attempts else ("gateway", "admit")  # it had no turn
