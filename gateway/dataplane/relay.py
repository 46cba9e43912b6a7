"""The backend's bytes to the client as they come. Usage is found on the way; nothing else is
changed.

A stream cut by a failure never ends cleanly (L13): it gets an error event and no [DONE].
"""

import asyncio
from contextlib import suppress
from typing import Final

from litestar.types import Send

from gateway.backends.answer import Answer
from gateway.backends.failures import TransportError
from gateway.backends.health import Outcome
from gateway.backends.sse import OversizedEventError, Splitter
from gateway.clock import steady_ns
from gateway.dataplane.flow import Attempt, Flow
from gateway.dataplane.forward import error_type, failed
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
    attempt.plain_text = read.text
    attempt.land(Outcome.SERVED, flow.arrival.now_us())
    mark(flow, attempt, spool, len(read.text) // _BYTES_A_TOKEN)
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


async def relay_stream(flow: Flow, answer: Answer, send: Send, spool: Spool) -> Deny | None:
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
    try:
        fault = await _pump(flow, attempt, answer, send, spool)
    except TransportError as broken:
        fault = broke(flow, attempt, broken)
    except OversizedEventError:
        fault = GARBAGE
    except BaseException:
        answer.abort()  # the client hung up or we are told to stop: the backend is let go at once
        raise
    finally:
        attempt.reported = attempt.meter.reported
        attempt.finish_reasons, flow.chunks = attempt.meter.finish_reasons, attempt.meter.chunks
    if fault is None:
        await complete(flow, attempt, answer, send)
        return None
    return await cut(flow, attempt, answer, send, fault)


async def _pump(
    flow: Flow, attempt: Attempt, answer: Answer, send: Send, spool: Spool
) -> Deny | None:
    """Events as they come, until the end. Complete events leave at once, together if they came
    together; half an event waits for its other half, nobody could read it anyway.
    """
    meter, envelope = attempt.meter, flow.envelope
    if meter is None or envelope is None:
        raise RuntimeError("a stream without its meter")
    hide_usage = not envelope.wants_usage
    splitter = Splitter()
    over = broken = False
    marks = Marks(flow, attempt, spool)
    while not (over or broken or meter.done):
        piece = await answer.receive()
        over = piece is None
        # A server that ends without its last blank line has still sent its last event.
        if piece is not None:
            events = splitter.feed(piece)
        else:
            events = [rest] if (rest := splitter.rest()) else []
        out, broken = _sift(flow, attempt, events, hide_usage=hide_usage)
        marks.look(meter.chunks, last=over or meter.done)
        if out:
            if not flow.started_answer:
                await start(flow, attempt, send)
            failpoint("relay.piece")
            body = out[0] if len(out) == 1 else b"".join(out)
            if flow.transcript is not None:
                flow.transcript.add(body)
            del piece, events, out  # a client that takes its time need not keep all three
            await send({"type": "http.response.body", "body": body, "more_body": True})
    whole = not broken and (meter.done or bool(meter.finish_reasons))
    return None if whole else ENDED_EARLY


class Marks:
    """Checkpoints of a stream in the spool: what a dead worker's request is billed from."""

    __slots__ = ("_attempt", "_flow", "_spool", "_told", "_told_ns")

    def __init__(self, flow: Flow, attempt: Attempt, spool: Spool) -> None:
        self._flow = flow
        self._attempt = attempt
        self._spool = spool
        self._told = 0
        self._told_ns = steady_ns()

    def look(self, chunks: int, *, last: bool) -> None:
        """Writes one every 256 tokens or 5 s, and one at the end; an event of content is taken for
        one token.
        """
        now_ns = steady_ns()
        few = chunks - self._told < _MARK_TOKENS and now_ns - self._told_ns < _MARK_NS
        if few and not last:
            return
        self._told, self._told_ns = chunks, now_ns
        mark(self._flow, self._attempt, self._spool, chunks)
        failpoint("relay.checkpointed")


def mark(flow: Flow, attempt: Attempt, spool: Spool, counted: int) -> None:
    """What a dead worker's request is billed from, before the client has it: `counted` tokens of
    output, or what the backend says.
    """
    said = attempt.reported
    if said is None and attempt.meter is not None:
        said = attempt.meter.reported
    output = max(counted, said.meters.output) if said is not None else counted
    with suppress(SpoolUnavailable):  # the request goes on; its outcome has the spool's reserve
        spool.checkpoint(flow.arrival.request_id, attempt.number, output, flow.arrival.now_us())


def _sift(
    flow: Flow, attempt: Attempt, events: list[bytes], *, hide_usage: bool
) -> tuple[list[bytes], bool]:
    """Meters the events and answers those the client gets; True: the rest is not worth reading."""
    meter = attempt.meter
    if meter is None:
        raise RuntimeError("a stream without its meter")
    out: list[bytes] = []
    shown = at = 0  # those before `shown` are dealt with, those before `at` metered
    broken = False
    while not broken and (at := meter.feed_texts(events, at)) < len(events):
        seen = meter.feed(events[at])
        broken = seen.error or seen.unreadable
        if broken or (seen.usage_only and hide_usage):
            out += events[shown:at]
            shown = at + 1
        at += 1
    if meter.text_bytes and not attempt.content_us:
        first_content(flow, attempt)
    if not shown:
        return events, broken
    return out if broken else out + events[shown:], broken


async def complete(flow: Flow, attempt: Attempt, answer: Answer, send: Send) -> None:
    failpoint("relay.metered")
    attempt.complete = True
    attempt.land(Outcome.SERVED, flow.arrival.now_us())
    if not flow.started_answer:
        await start(flow, attempt, send)
    flow.end_by, flow.end_phase = "upstream", "done"
    ended = attempt.meter is not None and attempt.meter.done
    last = b"" if ended else _DONE
    if flow.transcript is not None:
        flow.transcript.end(last)
    await send({"type": "http.response.body", "body": last, "more_body": False})
    failpoint("relay.ended")
    await let_go(answer)


async def let_go(answer: Answer) -> None:
    """After [DONE] nothing counts any more. The end of the body usually comes with it; a backend
    that leaves it open gets a moment, for the sake of its connection, and then none.
    """
    if answer.complete:
        return
    with suppress(TransportError, TimeoutError):
        async with asyncio.timeout(_GRACE_S):
            while await answer.receive() is not None:
                pass
    answer.abort()


async def cut(flow: Flow, attempt: Attempt, answer: Answer, send: Send, fault: Deny) -> Deny | None:
    answer.abort()
    attempt.error_type = attempt.error_type or ErrorType.STREAM_TRUNCATED
    attempt.land(Outcome.FAILED, flow.arrival.now_us())
    if not flow.started_answer:
        return fault
    flow.deny, flow.end_by, flow.end_phase = fault, "upstream", "stream"
    await send({"type": "http.response.body", "body": error_event(fault), "more_body": False})
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
