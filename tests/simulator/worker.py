"""One data-plane worker: the walk of a request, as gateway/dataplane takes it.

What the product decides by pure functions is decided by the same functions here: admission, the
next attempt, whose figures are billed, what an event comes to. The order of spool, store and
backend is the product's; its failpoints name the steps at which faults strike.
"""

from functools import partial
from typing import Any, Final

import msgspec

from billing.meters import Meters, Provenance
from billing.usage import ENCODER, UsageEvent
from gateway.backends.dialect import Reported
from gateway.dataplane.arrival import Arrival
from gateway.dataplane.events import event, template
from gateway.dataplane.figures import Figures, at_once
from gateway.dataplane.flow import Attempt, Flow
from gateway.dataplane.quote import quote
from gateway.dataplane.slices import begin
from gateway.stores.spool import Checkpoint, Closed, Dispatch, Intent, SpoolUnavailable
from gateway.stores.spool import Outcome as Ended
from policies.ask import Ask
from policies.budgets import Admission, Granted, Refused, Settlement
from policies.failover import Attempts, RetryBudget, outcome_of_failure, outcome_of_status
from policies.route import Plan
from policies.slices import SliceAsked
from tests.simulator import house
from tests.simulator.backend import Head
from tests.simulator.kernel import (
    Call,
    Cancelled,
    ClientGone,
    Process,
    Story,
    Task,
    Unreachable,
)
from tests.simulator.machine import Machine, Surroundings
from tests.simulator.spools import SpoolFile
from tests.simulator.upkeep import TTL_MS, Upkeep

OLD_GRANT_US: Final = TTL_MS * 667
MARK_TOKENS: Final = 256
MARK_US: Final = 5_000_000
TYPICAL_OUTPUT: Final = 256
MOST_IN_A_PIECE: Final = 400


class Request(msgspec.Struct, frozen=True):
    """What a client asks for. `tokens` is the true size of its prompt."""

    id: str
    key: str
    tokens: int
    wanted: int
    least: int
    streams: bool


class Worker:
    def __init__(self, world: Surroundings, machine: Machine, process: Process) -> None:
        self._world = world
        self._kernel = world.kernel
        self._store = world.store
        self._laws = world.laws
        self._machine = machine
        self.process = process
        self.spool = SpoolFile(process.name, process, machine.disk.boot)
        machine.disk.spools[self.spool.name] = self.spool
        self._snapshot = house.snapshot(world.scenario.budget)
        self._retries = RetryBudget()
        self.interruptible: dict[str, Task] = {}
        self._upkeep = Upkeep(world.kernel, world.store, process)

    @property
    def busy(self) -> bool:
        return bool(self.interruptible) or self._upkeep.busy

    def begin(self, request: Request) -> Task:
        task = self._kernel.start(self.process, self._serve(request))
        self.interruptible[request.id] = task
        return task

    def _now_us(self, flow: Flow) -> int:
        return self._kernel.now_us + flow.arrival.clock_offset_ns // 1000

    # the walk

    def _serve(self, request: Request) -> Story:
        flow = self._arrived(request)
        try:
            if (yield from self._admit(flow)):
                yield from self._forward(flow, request)
        except ClientGone:
            flow.status, flow.end_by, flow.gone = 499, "client", True
        except Cancelled:
            flow.end_by = "gateway"
        del self.interruptible[request.id]  # from here on it cannot be cancelled any more
        if flow.gone and flow.attempts:
            flow.attempts[-1].won = flow.attempts[-1].sent
        if flow.granted is not None:
            yield from self._settle(flow)

    def _arrived(self, request: Request) -> Flow:
        now_us, offset_us = self._kernel.now_us, self._machine.offset_us
        arrival = Arrival(
            request_id=request.id,
            arrived_us=now_us + offset_us,
            clock_offset_ns=offset_us * 1000,
            secret=b"",
            content_length=0,
            content_encoding=b"",
            traceparent=b"",
            tags=b"",
            explain=False,
            client_host="",
        )
        flow = Flow(arrival=arrival, trace=None, operation="chat", route_path="")
        flow.principal = principal = house.principal(self._snapshot, request.key)
        flow.route = route = self._snapshot.route(principal, house.MODEL, now_us)
        flow.ask = Ask(
            model=house.MODEL,
            operation="chat",
            capabilities=frozenset(),
            stream=request.streams,
            input_bound=request.tokens * 13 // 10 + 8,
            input_estimate=request.tokens,
            output_wanted=request.wanted,
            choices=1,
        )
        candidates = tuple(way.candidate for way in route.ways.values())
        turn = self._world.dice.bits(8) % len(candidates)
        flow.plan = Plan(candidates[turn:] + candidates[:turn], ())
        currency = principal.tenant.currency
        terms = quote(flow.ask, flow.plan, route, currency, in_slices=False)
        sliced = self._world.scenario.slice if request.streams else 0
        first = min(terms.wanted, max(sliced, request.least)) if sliced else terms.wanted
        flow.quote = msgspec.structs.replace(terms, first=first, least=request.least)
        flow.levels = self._snapshot.levels(principal)
        return flow

    def _admit(self, flow: Flow) -> Any:
        levels, request_id = flow.levels, flow.arrival.request_id
        flow.admit_started_us = now_us = self._now_us(flow)
        flow.estimated_tokens = flow.ask.input_estimate + min(flow.quote.wanted, TYPICAL_OUTPUT)
        flow.standing = levels.at(now_us)
        flow.template = template(flow)
        meta = ENCODER.encode(flow.template)
        if pause_us := self._kernel.at("admit.begins", self.process):
            yield pause_us
        for _ in range(3):
            ask = self._admission(flow, meta)
            try:
                answer = yield Call(
                    self._store,
                    "admit",
                    self._store.admit,
                    ask,
                    patience_us=1_000_000,
                    repeatable=False,
                    on_loss=partial(self._upkeep.unclaimed, ask),
                )
            except Unreachable:
                return False
            if not (isinstance(answer, Refused) and answer.reason == "stale_window"):
                break
            flow.standing = levels.refresh(answer.now_ms * 1000)
        if not isinstance(answer, Granted):
            return False
        flow.granted = answer
        self._upkeep.in_flight.add(request_id)
        if pause_us := self._kernel.at("admit.granted", self.process):
            yield pause_us
        try:
            self._write(Intent(request_id, levels.tag, answer.now_ms * 1000, meta))
        except SpoolUnavailable:
            flow.granted = None
            self._upkeep.in_flight.discard(request_id)
            self._upkeep.owe(request_id, ())
            return False
        if pause_us := self._kernel.at("admit.intended", self.process):
            yield pause_us
        if self._now_us(flow) - now_us > OLD_GRANT_US:
            self._write_if_it_can(Closed(request_id))
            flow.granted = None
            self._upkeep.in_flight.discard(request_id)
            self._upkeep.owe(request_id, ())
            return False
        begin(flow)
        return True

    def _admission(self, flow: Flow, meta: bytes) -> Admission:
        levels, terms = flow.levels, flow.quote
        taken = tuple(limit.gate(flow.estimated_tokens) for limit in levels.tokens)
        return Admission(
            hold_id=flow.arrival.request_id,
            ttl_ms=TTL_MS,
            input_money=terms.worst.input_nanos,
            output_money=terms.worst.output_nanos_per_token,
            input_tokens=flow.ask.input_estimate,
            wanted=terms.first,
            least=terms.least,
            choices=terms.choices,
            gates=levels.request_gates + taken,
            slots=levels.slots,
            accounts=flow.standing.accounts,
            meta=meta,
            owner=self.spool.name,
        )

    def _forward(self, flow: Flow, request: Request) -> Any:
        kernel, request_id = self._kernel, request.id
        attempts = Attempts(flow.plan.attempts, self._retries)
        candidate = attempts.begin(kernel.now_us)
        while candidate is not None:
            way = flow.route.ways[candidate.backend_id, candidate.upstream_model]
            attempt = Attempt(attempts.number, way, self._now_us(flow), sent=False)
            flow.attempts.append(attempt)
            backend = self._world.backends[candidate.backend_id]
            yield self._world.dice.latency_us()
            if backend.connects():
                if pause_us := kernel.at("forward.connected", self.process):
                    yield pause_us
                try:
                    at_us = self._now_us(flow)
                    self._write(Dispatch(request_id, attempt.number, backend.id, at_us))
                except SpoolUnavailable:
                    return
                attempt.sent, attempt.started_us = True, at_us
                self._laws.dispatched(request_id, attempt.number)
                if kernel.trace is not None:
                    kernel.say(f"{self.process.name}: {request_id} is sent to {backend.id}")
                if pause_us := kernel.at("forward.marked", self.process):
                    yield pause_us
                try:
                    most = flow.granted.output_tokens
                    head = yield backend.ask(request_id, attempt.number, request.tokens, most)
                except Unreachable:
                    head = None
                if head is not None and head.status == 200:
                    if pause_us := kernel.at("forward.answered", self.process):
                        yield pause_us
                    attempt.status = 200
                    yield from self._relay(flow, attempt, head)
                    return
                attempt.status = 0 if head is None else head.status
            outcome = (
                outcome_of_status(attempt.status)
                if attempt.status
                else outcome_of_failure(sent=attempt.sent)
            )
            candidate = attempts.after(outcome, kernel.now_us, first_byte_sent=False)

    def _relay(self, flow: Flow, attempt: Attempt, head: Head) -> Any:
        work, dice, streams = head.work, self._world.dice, flow.ask.stream
        end = dice.between(0, work.planned) if head.cut else work.planned
        held = flow.first_slice or flow.granted.output_tokens
        pace_us, told, told_us = dice.between(2_000, 40_000), 0, self._kernel.now_us
        while work.output_tokens < end:
            left = end - work.output_tokens
            piece = min(left, dice.between(20, MOST_IN_A_PIECE)) if streams else left
            yield piece * pace_us
            work.output_tokens += piece
            while work.output_tokens > held:
                was, held = held, (yield from self._slice(flow, held))
                if held <= was:
                    attempt.paid, flow.end_by = work.output_tokens - piece, "limit"
                    return
            if streams:
                attempt.won, flow.status, flow.end_phase = True, 200, "stream"
                attempt.content_us = attempt.content_us or self._now_us(flow)
                now_us = self._kernel.now_us
                if work.output_tokens - told >= MARK_TOKENS or now_us - told_us >= MARK_US:
                    told, told_us = work.output_tokens, now_us
                    self._mark(flow, attempt, told)
                if pause_us := self._kernel.at("relay.piece", self.process):
                    yield pause_us
        if head.cut:
            return
        work.whole = attempt.complete = attempt.won = True
        flow.status, flow.end_by, flow.end_phase = 200, "upstream", "done"
        if not head.withholds_usage:
            meters = Meters(input=work.input_tokens, output=work.output_tokens)
            attempt.reported = Reported(meters)
        if pause_us := self._kernel.at("relay.whole", self.process):
            yield pause_us

    def _slice(self, flow: Flow, held: int) -> Any:
        """What is held after the next slice was asked for; no more than before: it was refused, or
        the store did not answer.
        """
        upto = min(held + self._world.scenario.slice, flow.quote.wanted)
        asked = SliceAsked(flow.arrival.request_id, upto)
        try:
            taken = yield Call(self._store, "slice", self._store.take_slice, asked)
        except Unreachable:
            return held
        return held if taken is None else taken.grant

    def _mark(self, flow: Flow, attempt: Attempt, tokens: int) -> None:
        at_us = self._now_us(flow)
        try:
            self._write(Checkpoint(flow.arrival.request_id, attempt.number, tokens, at_us))
        except SpoolUnavailable:
            self._laws.unmarked.add(flow.arrival.request_id)

    # its end

    def _settle(self, flow: Flow) -> Any:
        if pause_us := self._kernel.at("settle.begins", self.process):
            yield pause_us
        request_id = flow.arrival.request_id
        if not flow.dispatched:
            self._write_if_it_can(Closed(request_id))
            if pause_us := self._kernel.at("release.spooled", self.process):
                yield pause_us
            self._upkeep.in_flight.discard(request_id)
            self._upkeep.owe(request_id, self._corrections(flow, 0))
            return
        sent = [attempt for attempt in flow.attempts if attempt.sent]
        events = [event(flow, attempt, self._figures(flow, attempt)) for attempt in sent]
        last = flow.winner or sent[-1]
        closing = next(one for one in events if one.attempt == last.number)
        for lost in events:
            if lost is not closing:
                # No hold bears this id: the store writes the journal entry and touches no counter.
                yield from self._post(request_id, lost, Settlement(lost.event_id, 0, 0))
        tokens = closing.usage.total if last.won else 0
        corrections = self._corrections(flow, tokens)
        ending = Settlement(request_id, closing.counter_nanos, tokens, corrections)
        yield from self._post(request_id, closing, ending)

    def _post(self, request_id: str, row: UsageEvent, done: Settlement) -> Any:
        packed = ENCODER.encode(row)
        self._write_if_it_can(Ended(request_id, packed))
        if pause_us := self._kernel.at("settle.spooled", self.process):
            yield pause_us
        done = msgspec.structs.replace(done, event=packed)
        self._upkeep.settle(done)

    def _figures(self, flow: Flow, attempt: Attempt) -> Figures:
        known = at_once(flow, attempt)
        if known is not None:
            return known
        work = self._world.book.get((flow.arrival.request_id, attempt.number))
        output = attempt.paid
        if output is None:
            output = work.output_tokens if work else 0
        own = Meters(input=flow.ask.input_estimate, output=output)
        sure = attempt.complete or attempt.content_us
        return Figures(own, Provenance.COUNTED if sure else Provenance.ESTIMATED, own)

    def _corrections(self, flow: Flow, tokens: int) -> tuple[tuple[str, int], ...]:
        if tokens == flow.estimated_tokens:
            return ()
        return tuple(
            (limit.key, limit.advance_us(tokens) - limit.advance_us(flow.estimated_tokens))
            for limit in flow.levels.tokens
        )

    # its spool

    def _write(self, record: Any, *, reserved: bool = False) -> None:
        self._machine.disk.write(self.spool, record, self._kernel.now_us, reserved=reserved)

    def _write_if_it_can(self, record: Any) -> None:
        try:
            self._write(record, reserved=True)
        except SpoolUnavailable:
            self._laws.unwritten.add(record.hold_id)
