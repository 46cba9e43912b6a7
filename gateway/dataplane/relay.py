"""The backend's bytes to the client as they come. Usage is found on the way; nothing else is
changed.

A piece of a stream is metered and written in the turn of the loop in which it arrives. The
coroutine that owns the answer sleeps meanwhile; every wait and every end is its own.

A stream cut by a failure never ends cleanly (L13): it gets an error event and no [DONE].
"""

import asyncio
from contextlib import suppress
from typing import Final

from litestar.types import Send

from gateway.backends.answer import Answer
from gateway.backends.dialect import StreamMeter
from gateway.backends.failures import TransportError
from gateway.backends.health import Outcome
from gateway.backends.sse import OversizedEventError, Splitter
from gateway.clock import steady_ns
from gateway.dataplane.flow import Attempt, Flow
from gateway.dataplane.forward import error_type, failed
from gateway.dataplane.outlet import AtOnce, not_yet
from gateway.dataplane.replies import EVENT_STREAM, JSON, answer_headers
from gateway.errors import error_event
from gateway.failpoints import failpoint
from gateway.stores.spool import Spool, SpoolUnavailable
from gateway.telemetry.names import ErrorType
from policies.decision import Deny, DenyCode

MOST_ANSWER_BYTES: Final = 64 * 1024 * 1024
_DONE: Final = b"data: [DONE]\n\n"
_GRACE_S: Final = 0.25
_MARK_TOKENS: Final = 256
_MARK_NS: Final = 5_000_000_000
_BYTES_A_TOKEN: Final = 4  # about; where nobody has counted yet
_SERVED: Final = Outcome.SERVED  # by name: a member is looked up the slow way each time

GARBAGE: Final = Deny(
    DenyCode.UPSTREAM_ERROR,
    "the backend's answer was not valid for this API; it may have done work, so the request was not"
    " repeated",
)
ENDED_EARLY: Final = Deny(
    DenyCode.UPSTREAM_ERROR,
    "the backend's stream ended before it was complete; what came until here was metered",
)


async def relay_plain(flow: Flow, answer: Answer, send: Send, spool: Spool) -> Deny | None:
    """A whole answer; None once the client has it, else why it gets none."""
    attempt = flow.attempts[-1]
    try:
        body = await answer.read(MOST_ANSWER_BYTES)
    except TransportError as fault:
        return broke(flow, attempt, fault)
    except BaseException:
        answer.abort()  # the client hung up: neither the backend nor its place waits for nobody
        raise
    failpoint("relay.whole")
    read = attempt.way.dialect.read_answer(body)
    if not read.readable:
        attempt.error_type = ErrorType.MALFORMED
        attempt.land(Outcome.FAILED, flow.arrival.now_us())
        return GARBAGE
    attempt.complete = attempt.won = True
    attempt.reported, attempt.finish_reasons = read.reported, read.finish_reasons
    attempt.plain_text, attempt.told_tier = read.text, read.service_tier
    now_us = flow.arrival.now_us()
    attempt.land(_SERVED, now_us)
    mark(flow, attempt, spool, len(read.text) // _BYTES_A_TOKEN, now_us)
    flow.status, flow.started_answer = 200, True
    flow.end_by, flow.end_phase = "upstream", "done"
    if flow.transcript is not None:
        flow.transcript.end(body)
    headers = answer_headers(flow, JSON)
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
    failpoint("relay.replied")
    return None


async def relay_stream(
    flow: Flow, answer: Answer, send: Send, at_once: AtOnce, spool: Spool
) -> Deny | None:
    """A stream of events. A Deny is answered only while the client has seen nothing yet; afterwards
    a failure is told inside the stream.
    """
    attempt = flow.attempts[-1]
    if not (answer.header(b"content-type") or b"").startswith(b"text/event-stream"):
        answer.abort()
        attempt.error_type = ErrorType.MALFORMED
        attempt.land(Outcome.FAILED, flow.arrival.now_us())
        return GARBAGE
    attempt.meter = attempt.way.dialect.meter()
    stream = _Stream(flow, attempt, attempt.meter, spool)
    try:
        fault = await stream.run(answer, send, at_once)
    except TransportError as broken:
        fault = broke(flow, attempt, broken)
    except OversizedEventError:
        fault = GARBAGE
    except BaseException:
        answer.abort()  # the client hung up or we are told to stop: the backend is let go at once
        raise
    finally:
        attempt.reported, attempt.told_tier = attempt.meter.reported, attempt.meter.service_tier
        attempt.finish_reasons, flow.chunks = attempt.meter.finish_reasons, attempt.meter.chunks
    if fault is None:
        await complete(flow, attempt, answer, send, stream.kept)
        return None
    return await cut(flow, attempt, answer, send, fault, stream.kept)


class _Stream:
    """Events as they come, until the end. Complete events leave at once, together if they came
    together; half an event waits for its other half, nobody could read it anyway.

    `run` sleeps while `take` is handed what comes and passes it on; it is woken for what has to be
    waited for. All that the client gets has been metered before.
    """

    __slots__ = (
        "_at_once",
        "_attempt",
        "_broken",
        "_content",
        "_flow",
        "_hide_usage",
        "_marks",
        "_meter",
        "_splitter",
        "_transcript",
        "kept",
    )

    def __init__(self, flow: Flow, attempt: Attempt, meter: StreamMeter, spool: Spool) -> None:
        self.kept = b""  # metered, and not with the client yet
        self._flow = flow
        self._attempt = attempt
        self._meter = meter
        self._hide_usage = flow.envelope is None or not flow.envelope.wants_usage
        self._splitter = Splitter()
        self._marks = Marks(flow, attempt, spool)
        self._at_once: AtOnce = not_yet  # until the head has gone
        self._broken = self._content = False
        self._transcript = flow.transcript

    async def run(self, answer: Answer, send: Send, at_once: AtOnce) -> Deny | None:
        """What came last is left in `kept`, for whoever ends the stream."""
        meter, ended = self._meter, False
        while not (ended or self._broken or meter.done):
            ended = await answer.pour(self.take)
            if ended:
                # A server that ends without its last blank line has still sent its last event.
                self._pass([rest] if (rest := self._splitter.rest()) else [], last=True)
            elif self.kept and not (self._broken or meter.done):
                if not self._flow.started_answer:
                    await start(self._flow, self._attempt, send)
                body, self.kept = self.kept, b""
                await send({"type": "http.response.body", "body": body, "more_body": True})
                self._at_once = at_once
        whole = not self._broken and (meter.done or bool(meter.finish_reasons))
        return None if whole else ENDED_EARLY

    def take(self, piece: bytes) -> bool:
        """False: the coroutine in `run` is needed."""
        return self._pass(self._splitter.feed(piece))

    def _pass(self, events: list[bytes], *, last: bool = False) -> bool:
        meter, marks = self._meter, self._marks
        at = meter.feed_texts(events, 0)
        if at < len(events):
            events = self._sift(events, at)
        if meter.chunks and not self._content:
            self._content = True
            first_content(self._flow, self._attempt)
        last = last or meter.done
        if last or meter.chunks >= marks.at_chunks or steady_ns() >= marks.at_ns:
            marks.write(meter.chunks)
        last = last or self._broken
        if not events:
            return not last
        failpoint("relay.piece")
        body = events[0] if len(events) == 1 else b"".join(events)
        if self._transcript is not None:
            self._transcript.add(body)
        if not last and self._at_once(body):
            return True
        self.kept = body
        return False

    def _sift(self, events: list[bytes], at: int) -> list[bytes]:
        """Meters the events from `at` on, which is not mere text, and answers those that the client
        gets. Once `_broken`, the rest is not worth reading.
        """
        meter = self._meter
        out: list[bytes] = []
        shown = 0  # those before are dealt with, those before `at` metered
        while at < len(events) and not self._broken:
            seen = meter.feed(events[at])
            self._broken = seen.error or seen.unreadable
            if self._broken or (seen.usage_only and self._hide_usage):
                out += events[shown:at]
                shown = at + 1
            at = meter.feed_texts(events, at + 1) if not self._broken else at
        if not shown:
            return events
        return out if self._broken else out + events[shown:]


class Marks:
    """Checkpoints of a stream in the spool: what a dead worker's request is billed from. One is due
    every 256 tokens or 5 s, and at the end; an event of content is taken for one token.
    """

    __slots__ = ("_attempt", "_flow", "_spool", "at_chunks", "at_ns")

    def __init__(self, flow: Flow, attempt: Attempt, spool: Spool) -> None:
        self.at_chunks = _MARK_TOKENS  # the next is due at so many chunks,
        self.at_ns = steady_ns() + _MARK_NS  # or at this time
        self._flow = flow
        self._attempt = attempt
        self._spool = spool

    def look(self, chunks: int, *, last: bool) -> None:
        """Writes one if it is due."""
        if last or chunks >= self.at_chunks or steady_ns() >= self.at_ns:
            self.write(chunks)

    def write(self, chunks: int) -> None:
        self.at_chunks, self.at_ns = chunks + _MARK_TOKENS, steady_ns() + _MARK_NS
        mark(self._flow, self._attempt, self._spool, chunks, self._flow.arrival.now_us())
        failpoint("relay.checkpointed")


def mark(flow: Flow, attempt: Attempt, spool: Spool, counted: int, now_us: int) -> None:
    """What a dead worker's request is billed from, before the client has it: `counted` tokens of
    output, or what the backend says.
    """
    said = attempt.reported
    if said is None and attempt.meter is not None:
        said = attempt.meter.reported
    output = counted if said is None or said.meters.output < counted else said.meters.output
    try:  # noqa: SIM105 - the context would cost half of what the record does
        spool.checkpoint(flow.arrival.request_id, attempt.number, output, now_us)
    except SpoolUnavailable:
        pass  # the request goes on; its outcome has the spool's reserve


async def complete(
    flow: Flow, attempt: Attempt, answer: Answer, send: Send, kept: bytes = b""
) -> None:
    """Ends the stream with what the client does not have yet, so that both are one write."""
    failpoint("relay.metered")
    attempt.complete = True
    attempt.land(_SERVED, flow.arrival.now_us())
    if not flow.started_answer:
        await start(flow, attempt, send)
    flow.end_by, flow.end_phase = "upstream", "done"
    ended = attempt.meter is not None and attempt.meter.done
    last = b"" if ended else _DONE
    if flow.transcript is not None:
        flow.transcript.end(last)
    await send({"type": "http.response.body", "body": kept + last, "more_body": False})
    failpoint("relay.ended")
    await let_go(flow, answer)


async def let_go(flow: Flow, answer: Answer) -> None:
    """The client has everything: after [DONE] nothing counts any more. The end of the body usually
    comes with it; a backend that leaves it open gets a moment, for the sake of its connection, and
    then none.
    """
    flow.whole = True
    if answer.complete:
        return
    try:
        with suppress(TransportError, TimeoutError):
            async with asyncio.timeout(_GRACE_S):
                while await answer.receive() is not None:
                    pass
    finally:
        answer.abort()


async def cut(
    flow: Flow, attempt: Attempt, answer: Answer, send: Send, fault: Deny, kept: bytes = b""
) -> Deny | None:
    """Ends it with what the client does not have yet and the failure."""
    answer.abort()
    attempt.error_type = attempt.error_type or ErrorType.STREAM_TRUNCATED
    attempt.land(Outcome.FAILED, flow.arrival.now_us())
    if kept and not flow.started_answer:
        await start(flow, attempt, send)
    if not flow.started_answer:
        return fault
    flow.deny, flow.end_by, flow.end_phase = fault, "upstream", "stream"
    last = kept + error_event(fault)
    await send({"type": "http.response.body", "body": last, "more_body": False})
    return None


async def start(flow: Flow, attempt: Attempt, send: Send) -> None:
    failpoint("relay.begins")
    attempt.won = True
    flow.status, flow.end_phase, flow.started_answer = 200, "stream", True
    headers = answer_headers(flow, EVENT_STREAM)
    headers += _NO_BUFFERING
    await send({"type": "http.response.start", "status": 200, "headers": headers})


_NO_BUFFERING: Final = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


def first_content(flow: Flow, attempt: Attempt) -> None:
    attempt.content_us = flow.first_content_us = flow.arrival.now_us()
    if attempt.flight is not None:
        attempt.flight.first_byte(attempt.content_us - flow.arrival.clock_offset_ns // 1000)


def broke(flow: Flow, attempt: Attempt, fault: TransportError) -> Deny:
    attempt.error_type = error_type(fault)
    attempt.land(Outcome.FAILED, flow.arrival.now_us())
    return failed(fault)
