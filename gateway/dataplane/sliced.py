"""Answers whose hold grows while they come. The backend always streams, so that it can be cut; a
client that wants one plain answer gets it put together.

A stream cut by its budget ends cleanly, with `length`, usage and a notice; one cut because the
store could not be asked ends with an error (L13). Either way the backend is let go at once.
"""

from functools import partial
from typing import Any, Final, Protocol

from litestar.types import Send

from billing.meters import Meters
from gateway.backends.answer import Answer
from gateway.backends.dialect import Reported, Seen
from gateway.backends.failures import AnswerTooLarge, TransportError
from gateway.backends.health import Outcome
from gateway.backends.sse import OversizedEventError, Splitter
from gateway.dataplane.count import Tokeniser
from gateway.dataplane.figures import count
from gateway.dataplane.flow import Flow
from gateway.dataplane.leases import Leases
from gateway.dataplane.outlet import not_yet
from gateway.dataplane.over_budget import used_up
from gateway.dataplane.relay import (
    ENDED_EARLY,
    GARBAGE,
    MOST_ANSWER_BYTES,
    Marks,
    broke,
    complete,
    cut,
    first_content,
    let_go,
    mark,
    relay_plain,
    relay_stream,
    start,
)
from gateway.dataplane.replies import JSON, answer_headers
from gateway.dataplane.slices import Slices, Terms
from gateway.errors import error_event
from gateway.failpoints import failpoint
from gateway.stores.redis.holds import HoldStore
from gateway.stores.spool import Spool
from policies.decision import Deny, DenyCode

Notice = dict[str, Any]

_NOT_ASKED: Final = Deny(
    DenyCode.QUOTA_UNAVAILABLE,
    "budgets cannot be checked right now, so the answer was cut where it was paid for; retry"
    " shortly",
    retry_after_ms=2_000,
)


class Sink(Protocol):
    """Where the events go: on to the client, or into one plain answer."""

    def take(self, event: bytes, seen: Seen) -> None:
        """An event that is paid for; it may wait for `flush`."""
        ...

    async def flush(self) -> None: ...

    async def complete(self, answer: Answer) -> None:
        """The backend has said everything."""
        ...

    async def cut(self, used: Meters, notice: Notice) -> None:
        """The money is gone; the client is told in the words of its API."""
        ...


class Slicer:
    """Everything a sliced answer needs besides the request itself."""

    def __init__(
        self, holds: HoldStore, leases: Leases, tokeniser: Tokeniser, spool: Spool
    ) -> None:
        self._holds = holds
        self._leases = leases
        self._tokeniser = tokeniser
        self._spool = spool

    async def ready(self, flow: Flow) -> None:
        """What counts its tokens is loaded before the request is sent anywhere: while it loads, a
        backend would run ahead.
        """
        if flow.route is not None:
            await self._tokeniser.ready(flow.route.model.encoding)

    async def relay(self, flow: Flow, answer: Answer, send: Send) -> Deny | None:
        """A Deny is answered only while the client has seen nothing yet."""
        attempt, envelope = flow.attempts[-1], flow.envelope
        if envelope is None:
            raise RuntimeError("an answer before the route")
        streams = bool(envelope.stream)
        if not (answer.header(b"content-type") or b"").startswith(b"text/event-stream"):
            if streams:
                return await relay_stream(flow, answer, send, not_yet, self._spool)  # refuses it
            return await relay_plain(flow, answer, send, self._spool)
        sink: Sink = _Passed(flow, send) if streams else _Gathered(flow, send)
        heard: list[str] = []
        attempt.meter = meter = attempt.way.dialect.listening(heard)
        slices = self._slices(flow)
        try:
            fault = await self._pump(flow, answer, sink, slices, heard)
        except TransportError as broken:
            fault = broke(flow, attempt, broken)
        except OversizedEventError:
            fault = GARBAGE
        except BaseException:
            answer.abort()
            raise
        finally:
            attempt.reported, attempt.told_tier = (
                _believed(meter.reported, slices),
                meter.service_tier,
            )
            # However it ends but whole: what came and was not held for is not billed.
            attempt.paid = slices.used
            attempt.finish_reasons, flow.chunks = meter.finish_reasons, meter.chunks
        if fault is not None:
            return await cut(flow, attempt, answer, send, fault)
        if slices.over:
            return await self._cut(flow, answer, send, sink, slices)
        attempt.reported, attempt.paid = meter.reported, None
        await sink.complete(answer)
        return None

    def _slices(self, flow: Flow) -> Slices:
        quote, route, levels = flow.quote, flow.route, flow.levels
        if quote is None or route is None or levels is None:
            raise RuntimeError("slices before admission")
        return Slices(
            Terms(flow.first_slice, route.policy.slice, quote.wanted, quote.choices),
            partial(self._holds.slicing, levels.tag, flow.arrival.request_id),
            self._leases.recall,
            partial(self._tokeniser.at_once, route.model.encoding),
        )

    async def _pump(
        self, flow: Flow, answer: Answer, sink: Sink, slices: Slices, heard: list[str]
    ) -> Deny | None:
        """Events as they come and as they are paid for. None: it is whole, or `slices` is over."""
        attempt = flow.attempts[-1]
        meter = attempt.meter
        if meter is None:
            raise RuntimeError("a stream without its meter")
        splitter, marks, over = Splitter(), Marks(flow, attempt, self._spool), False
        while not (over or meter.done):
            piece = await answer.receive()
            over = piece is None
            for event in splitter.feed(piece) if piece is not None else [splitter.rest()]:
                if not event:
                    continue
                seen = meter.feed(event)
                if seen.error or seen.unreadable:
                    await sink.flush()
                    return ENDED_EARLY
                if seen.text_bytes and not await self._pay(flow, sink, slices, heard):
                    return None
                sink.take(event, seen)
                if slices.spent and not await self._more(sink, slices, slices.used + 1):
                    return None
            marks.look(slices.used, last=over or meter.done)
            failpoint("sliced.piece")
            await sink.flush()
        return None if meter.done or meter.finish_reasons else ENDED_EARLY

    async def _pay(self, flow: Flow, sink: Sink, slices: Slices, heard: list[str]) -> bool:
        """Whether the event that brought these texts is covered. What is not goes to nobody."""
        attempt = flow.attempts[-1]
        if not attempt.content_us:
            first_content(flow, attempt)
        reported = attempt.meter.reported if attempt.meter is not None else None
        used = slices.weigh(heard, reported.meters.output if reported is not None else 0)
        if not slices.covers(used) and not await self._more(sink, slices, used):
            return False
        slices.spend(used)
        return True

    async def _more(self, sink: Sink, slices: Slices, used: int) -> bool:
        await sink.flush()  # what is paid for does not wait for what is not
        return await slices.cover(used)

    async def _cut(
        self, flow: Flow, answer: Answer, send: Send, sink: Sink, slices: Slices
    ) -> Deny | None:
        """Lets the backend go, then tells the client; a Deny where it has seen nothing yet."""
        answer.abort()
        attempt = flow.attempts[-1]
        attempt.land(Outcome.ABANDONED, flow.arrival.now_us())
        flow.end_phase = "stream"
        if slices.blocked is None:
            flow.deny, flow.end_by = _NOT_ASKED, "gateway"
            if not flow.started_answer:
                return _NOT_ASKED
            last = error_event(_NOT_ASKED)
            await send({"type": "http.response.body", "body": last, "more_body": False})
            return None
        why = used_up(flow, slices.blocked, slices.used)
        flow.deny, flow.end_by = why, "limit"
        attempt.reported, attempt.won = None, True
        attempt.finish_reasons += ("length",)
        mark(flow, attempt, self._spool, slices.used, flow.arrival.now_us())
        billed = await count(flow, attempt, self._tokeniser)
        await sink.cut(billed.usage, {"code": why.code.value, "message": why.message})
        return None


class _Passed:
    """Events as they are, for a client that streams."""

    def __init__(self, flow: Flow, send: Send) -> None:
        envelope = flow.envelope
        self._flow = flow
        self._send = send
        self._wants_usage = envelope is not None and envelope.wants_usage
        self._ending = flow.attempts[-1].way.dialect.ending(flow.operation)
        self._out: list[bytes] = []

    def take(self, event: bytes, seen: Seen) -> None:
        self._ending.note(event, finish=seen.finish_reason is not None)
        if self._wants_usage or not seen.usage_only:
            self._out.append(event)

    async def flush(self) -> None:
        if not self._out:
            return
        body, self._out = b"".join(self._out), []
        await self._write(body, more=True)

    async def complete(self, answer: Answer) -> None:
        await complete(self._flow, self._flow.attempts[-1], answer, self._send)

    async def cut(self, used: Meters, notice: Notice) -> None:
        choices = _choices(self._flow)
        last = self._ending.events(choices, used, notice, usage_apart=self._wants_usage)
        await self._write(last, more=False)

    async def _write(self, body: bytes, *, more: bool) -> None:
        flow = self._flow
        if not flow.started_answer:
            await start(flow, flow.attempts[-1], self._send)
        if flow.transcript is not None:
            (flow.transcript.add if more else flow.transcript.end)(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


class _Gathered:
    """The plain answer that a client asked for."""

    def __init__(self, flow: Flow, send: Send) -> None:
        self._flow = flow
        self._send = send
        self._whole = flow.attempts[-1].way.dialect.whole(flow.operation)
        self._size = 0

    def take(self, event: bytes, seen: Seen) -> None:
        del seen
        self._size += len(event)
        if self._size > MOST_ANSWER_BYTES:
            raise AnswerTooLarge(f"the answer is larger than {MOST_ANSWER_BYTES} bytes")
        self._whole.add(event)

    async def flush(self) -> None:
        """Nothing is told before the end."""

    async def complete(self, answer: Answer) -> None:
        flow, attempt = self._flow, self._flow.attempts[-1]
        attempt.complete = attempt.won = True
        attempt.land(Outcome.SERVED, flow.arrival.now_us())
        flow.end_by = "upstream"
        await self._reply(self._whole.body())
        await let_go(flow, answer)

    async def cut(self, used: Meters, notice: Notice) -> None:
        await self._reply(self._whole.body(_choices(self._flow), used=used, notice=notice))

    async def _reply(self, body: bytes) -> None:
        flow = self._flow
        flow.status, flow.started_answer, flow.end_phase = 200, True, "done"
        if flow.transcript is not None:
            flow.transcript.end(body)
        headers = answer_headers(flow, JSON)
        headers.append((b"content-length", b"%d" % len(body)))
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _believed(reported: Reported | None, slices: Slices) -> Reported | None:
    """The backend's word of a stream that did not end, unless it speaks of what nobody got."""
    if reported is not None and reported.meters.output > slices.used:
        return None
    return reported


def _choices(flow: Flow) -> int:
    return flow.quote.choices if flow.quote is not None else 1
