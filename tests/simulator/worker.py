"""One data-plane worker: the walk of a request, as gateway/dataplane takes it.

What the product decides by pure functions is decided by the same functions here: admission, the
next attempt, whose figures are billed, what an event comes to. The order of spool, store and
backend is the product's; its failpoints name the steps at which faults strike.
"""

from typing import Any, Final

import msgspec

from billing.meters import Meters, Provenance
from billing.usage import ENCODER, UsageEvent
from gateway.backends.dialect import Reported
from gateway.dataplane.events import event
from gateway.dataplane.figures import Figures, at_once
from gateway.dataplane.flow import Attempt, Flow
from gateway.dataplane.slices import begin
from gateway.stores.spool import Checkpoint, Dispatch, SpoolUnavailable
from gateway.stores.spool import Outcome as Ended
from policies.budgets import Refused, Settlement
from policies.failover import Attempts, RetryBudget, outcome_of_failure, outcome_of_status
from policies.idempotency import Keeping
from policies.slices import SliceAsked
from tests.simulator import asking, house
from tests.simulator.admitting import Door
from tests.simulator.asking import Request
from tests.simulator.backend import Head
from tests.simulator.kernel import Call, Cancelled, ClientGone, Process, Story, Task, Unreachable
from tests.simulator.machine import Machine, Surroundings
from tests.simulator.spools import SpoolFile

MARK_TOKENS: Final = 256
MARK_US: Final = 5_000_000
MOST_IN_A_PIECE: Final = 400
KEPT_MS: Final = 600_000
KEPT_BYTES: Final = 20_000


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
        self._snapshot = house.snapshot(world.scenario.budget, world.scenario.outage)
        self._retries = RetryBudget()
        self.interruptible: dict[str, Task] = {}
        self.door = Door(world, process, machine, self.spool)
        self._upkeep = self.door.upkeep

    @property
    def busy(self) -> bool:
        return bool(self.interruptible) or self._upkeep.busy

    def begin(self, request: Request) -> Task:
        task = self._kernel.start(self.process, self._serve(request))
        self.interruptible[request.id] = task
        return task

    def _now_us(self, flow: Flow) -> int:
        return self._kernel.now_us + flow.arrival.clock_offset_ns // 1000

    def hears_of(self, epoch: int) -> Story:
        """The configuration says that this one was begun."""
        self.door.guard.at_least(epoch)
        yield 0

    # the walk

    def _serve(self, request: Request) -> Story:
        now_us, offset_us = self._kernel.now_us, self._machine.offset_us
        flow = asking.arrived(request, self._snapshot, now_us, offset_us)
        try:
            if (yield from self._admit(flow, request)):
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

    def _admit(self, flow: Flow, request: Request) -> Any:
        """With the model asked for; where no budget covers that, with the cheaper one."""
        turn, slice_ = self._world.dice.bits(8), self._world.scenario.slice
        for model in (house.MODEL, house.SMALL):
            asking.plan(flow, request, self._snapshot, model, turn=turn, slice=slice_)
            answer = yield from self.door.admit(flow)
            over_budget = isinstance(answer, Refused) and answer.reason == "budget"
            if not over_budget or not self._world.scenario.degrades:
                break
        if answer is not True:
            return False
        begin(flow)
        return True

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
                self._laws.dispatched(request_id, attempt.number, self.process)
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
        asked, recalls = SliceAsked(flow.arrival.request_id, upto), 0
        while True:
            try:
                taken = yield from self.door.with_epoch(
                    lambda token: Call(self._store, "slice", self._store.take_slice, token, asked)
                )
            except Unreachable:
                return held
            if taken is None or taken.grant > held or not taken.leased:
                return held if taken is None else taken.grant
            if not (yield from self.door.leasing.recall(taken.leased, recalls)):
                return held
            recalls += 1

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
            self.door.close(request_id)
            if flow.spend is not None:
                flow.spend.undo()
                self._laws.spent(request_id, 0)
            if pause_us := self._kernel.at("release.spooled", self.process):
                yield pause_us
            self._upkeep.in_flight.discard(request_id)
            self._upkeep.owe(request_id, self._corrections(flow, 0))
            return
        self._keep(flow)
        sent = [attempt for attempt in flow.attempts if attempt.sent]
        events = [event(flow, attempt, self._figures(flow, attempt)) for attempt in sent]
        last = flow.winner or sent[-1]
        closing = next(one for one in events if one.attempt == last.number)
        if flow.spend is not None:
            flow.spend.ended(closing.counter_nanos)
            self._laws.spent(request_id, closing.counter_nanos)
        for lost in events:
            if lost is not closing:
                # No hold bears this id: the store writes the journal entry and touches no counter.
                yield from self._post(flow, lost, Settlement(lost.event_id, 0, 0))
        tokens = closing.usage.total if last.won else 0
        corrections = self._corrections(flow, tokens)
        ending = Settlement(
            request_id,
            closing.counter_nanos,
            tokens,
            corrections,
            unheld=flow.unheld,
            leases=flow.spend.ids if flow.spend is not None else (),
        )
        yield from self._post(flow, closing, ending)

    def _post(self, flow: Flow, row: UsageEvent, done: Settlement) -> Any:
        packed = ENCODER.encode(row)
        self._write_if_it_can(Ended(flow.arrival.request_id, packed, flow.unheld, done.leases))
        self._laws.concluded(flow.arrival.request_id)
        if pause_us := self._kernel.at("settle.spooled", self.process):
            yield pause_us
        unprocessed = flow.ticket is not None and flow.unprocessed
        done = msgspec.structs.replace(done, event=packed, unprocessed=unprocessed)
        self._upkeep.settle(done, flow.spend if done.leases else None)

    def _keep(self, flow: Flow) -> None:
        """A whole answer, for who asks again with the same key."""
        ticket, request_id = flow.ticket, flow.arrival.request_id
        if ticket is None or not any(attempt.complete for attempt in flow.attempts):
            return
        answer = request_id.encode()
        kept = Keeping(ticket.index, ticket.name, request_id, KEPT_MS, KEPT_BYTES, answer)
        call = Call(self._store, "keep", self._store.keep, kept)
        self._kernel.post(self.process, call, lambda _: None)

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
            (limit.key, limit.further_us(flow.estimated_tokens, tokens))
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
