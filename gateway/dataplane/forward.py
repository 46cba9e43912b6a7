"""Drives the plan: one attempt after another until a backend answers or retrying would be wrong.

Retried is only what provably was not processed: no connection, or an explicit refusal (429, 503),
and only before the client's first byte. A slow attempt may get another one beside it (hedge.py).
The spool's dispatch mark is written before the first byte leaves.
"""

import re
from typing import Final

import msgspec

from gateway import clock
from gateway.backends.answer import Answer
from gateway.backends.failures import (
    AnswerTooLarge,
    ConnectTimeout,
    FirstByteTimeout,
    IdleTimeout,
    Malformed,
    PoolTimeout,
    TotalTimeout,
    TransportError,
)
from gateway.backends.health import Backends, Outcome
from gateway.backends.transport import Transport
from gateway.dataplane.desk import Turn
from gateway.dataplane.envelope import CHAT, EMBEDDINGS
from gateway.dataplane.flow import CLIENT_FAULTS, Attempt, Flow
from gateway.dataplane.hedge import Hedges
from gateway.dataplane.rewrite import rewrite
from gateway.dataplane.turns import Given, Turns, claim_of
from gateway.dataplane.ways import Way
from gateway.failpoints import failpoint
from gateway.stores.spool import Spool, SpoolUnavailable
from gateway.telemetry.names import ErrorType
from policies.candidates import Candidate
from policies.decision import Deny, DenyCode
from policies.failover import Attempts, RetryBudget
from policies.failover import Outcome as Ending

_NOBODY: Final = Deny(DenyCode.NO_BACKEND, "no backend is left to try; retry shortly")
_MOST_ERROR_BYTES: Final = 64 * 1024
_LONGEST_TOLD_WAIT_MS: Final = 60_000


class Forwarder:
    """Everything an attempt needs besides the request itself."""

    def __init__(
        self,
        transport: Transport,
        backends: Backends,
        spool: Spool,
        retries: RetryBudget,
        turns: Turns,
    ) -> None:
        self._transport = transport
        self._backends = backends
        self._spool = spool
        self._retries = retries
        self._hedges = Hedges(backends, spool, turns)
        self.turns = turns

    async def forward(self, flow: Flow) -> Answer | Deny:
        """The winning backend's answer, its head read and its status 200; else the last refusal."""
        plan, route = flow.plan, flow.route
        if plan is None or route is None:
            raise RuntimeError("forwarding before routing")
        attempts = Attempts(plan.attempts, self._retries, self._rests)
        candidate: Candidate | None = attempts.begin(clock.monotonic_us())
        hedged = route.policy.hedge_after_ms is not None
        hedge = self._hedges.of(flow, attempts, self._begun) if hedged else None
        deny = _NOBODY
        while candidate is not None:
            turn: Turn | None = None
            if candidate.max_concurrency is not None:
                given = await self._turn(flow, attempts)
                if isinstance(given, Deny):
                    return given
                candidate, turn = given
            way = route.ways[(candidate.backend_id, candidate.upstream_model)]
            attempt = Attempt(attempts.number, way, flow.arrival.now_us(), turn=turn)
            flow.attempts.append(attempt)
            running = self._try(flow, attempt) if hedge is None else hedge.race(attempt)
            answer = await running
            if isinstance(answer, Answer):
                return answer
            deny = answer
            failpoint("forward.refused")
            if flow.left:
                return deny
            candidate = attempts.after(
                flow.attempts[-1].ending, clock.monotonic_us(), first_byte_sent=False
            )
        return deny

    async def once(self, flow: Flow, candidate: Candidate, turn: Turn | None) -> Answer | Deny:
        """As `forward`: one attempt at this candidate, and none after it."""
        if flow.route is None:
            raise RuntimeError("forwarding before routing")
        way = flow.route.ways[candidate.backend_id, candidate.upstream_model]
        attempt = Attempt(0, way, flow.arrival.now_us(), turn=turn)
        flow.attempts.append(attempt)
        return await self._try(flow, attempt)

    async def _begun(self, flow: Flow, attempt: Attempt) -> Answer | Deny:
        """As `_try`, up to the first of a stream: its head is often sent long before."""
        answer = await self._try(flow, attempt)
        streams = flow.first_slice > 0 or (flow.envelope is not None and flow.envelope.stream)
        if not streams or not isinstance(answer, Answer):
            return answer
        try:
            await answer.heard()
        except TransportError as fault:
            attempt.error_type = error_type(fault)
            attempt.land(Outcome.FAILED, flow.arrival.now_us())
            return failed(fault)
        except BaseException:
            answer.abort()
            raise
        return answer

    def _rests(self, candidate: Candidate) -> bool:
        key = candidate.backend_id, candidate.upstream_model
        return self._backends.rests(key, clock.monotonic_us())

    def _wants_less(self, flow: Flow, attempt: Attempt, answer: Answer) -> None:
        """What a refusal for load says of the backend, and of those that share its account."""
        rest_ms, now_us, way = asked_rest_ms(answer), clock.monotonic_us(), attempt.way
        if attempt.flight is not None:
            attempt.flight.wants_less(rest_ms, now_us)
        if rest_ms and answer.status == 429 and flow.route is not None:
            model = way.candidate.upstream_model
            shared = (
                key
                for key, other in flow.route.ways.items()
                if other.account == way.account and other.candidate.upstream_model == model
            )
            self._backends.rest(shared, rest_ms, now_us)

    async def _turn(self, flow: Flow, attempts: Attempts) -> Given | Deny:
        """The next candidate that has room, as soon as one has."""
        claim = claim_of(flow)
        given: Given | Deny | None = self.turns.find(attempts.left, claim)
        if given is None:
            began_us = flow.arrival.now_us()
            try:
                given = await self.turns.wait(attempts.left, claim)
            finally:
                flow.queued_us += flow.arrival.now_us() - began_us
        if not isinstance(given, Deny):
            attempts.instead(given[0])
        return given

    async def _try(self, flow: Flow, attempt: Attempt) -> Answer | Deny:
        candidate, ask = attempt.way.candidate, flow.ask
        tokens = ask.input_estimate if ask is not None else 0
        attempt.flight = self._backends.began(
            candidate.backend_id, candidate.upstream_model, tokens, clock.monotonic_us()
        )
        # Until the hook below has run, nothing of this attempt has left the process.
        attempt.sent = False
        try:
            answer = await self._request(flow, attempt)
            attempt.status, attempt.head_us = answer.status, flow.arrival.now_us()
            failpoint("forward.answered")
            if answer.status == 200:
                return answer
            if answer.status in (429, 503, 529):
                self._wants_less(flow, attempt, answer)
            return await _refusal(flow, attempt, answer)
        except TransportError as fault:
            attempt.sent, attempt.error_type = fault.sent, error_type(fault)
            attempt.land(Outcome.FAILED, flow.arrival.now_us())
            return failed(fault)
        except SpoolUnavailable:
            attempt.land(Outcome.ABANDONED, flow.arrival.now_us())
            return Deny(
                DenyCode.JOURNAL_UNAVAILABLE,
                "usage cannot be recorded right now, so nothing is served; retry shortly",
                retry_after_ms=2_000,
            )

    async def _request(self, flow: Flow, attempt: Attempt) -> Answer:
        way, request_id = attempt.way, flow.arrival.request_id

        def dispatched() -> None:
            failpoint("forward.connected")
            attempt.started_us = flow.arrival.now_us()
            self._spool.dispatch(
                request_id, attempt.number, way.candidate.backend_id, attempt.started_us
            )
            attempt.sent = True
            failpoint("forward.marked")

        return await self._transport.request(
            way.endpoint,
            way.dialect.path(flow.operation),
            way.headers,
            _body(flow, way),
            way.timeouts,
            own=_own_headers(flow, attempt),
            before_send=dispatched,
        )


def _own_headers(flow: Flow, attempt: Attempt) -> list[tuple[bytes, bytes]]:
    """Nothing of the client's headers goes upstream: neither its key nor anything it smuggled
    in.
    """
    headers = [(b"x-request-id", flow.arrival.request_id.encode())]
    if attempt.way.backend.trusted:
        headers.append((b"traceparent", flow.trace.traceparent(attempt.number)))
    return headers


def _body(flow: Flow, way: Way) -> bytes:
    envelope, granted = flow.envelope, flow.granted
    if envelope is None or granted is None:
        raise RuntimeError("forwarding before admission")
    sliced = flow.first_slice > 0  # then it is streamed, or it could not be cut
    return rewrite(
        flow.fields,
        model=way.candidate.upstream_model,
        output_tokens=None if flow.operation == EMBEDDINGS else granted.output_tokens,
        output_field="max_completion_tokens" if way.provider == "openai" else "max_tokens",
        include_usage=(sliced or bool(envelope.stream)) and not envelope.wants_usage,
        stream=sliced,
    )


class _UpstreamError(msgspec.Struct, frozen=True):
    message: str | None = None
    param: str | None = None


class _UpstreamFault(msgspec.Struct, frozen=True):
    error: _UpstreamError | str | None = None


_FAULT: Final = msgspec.json.Decoder(_UpstreamFault)


async def _refusal(flow: Flow, attempt: Attempt, answer: Answer) -> Deny:
    """What a status other than 200 means to the client. The backend's own words are passed on only
    where they speak of the client's request.
    """
    status = answer.status
    attempt.error_type = str(status)
    now_us = flow.arrival.now_us
    if attempt.ending is Ending.REFUSED:
        answer.abort()
        attempt.land(Outcome.REFUSED if status == 429 else Outcome.FAILED, now_us())
        return Deny(
            DenyCode.OVERLOADED,
            "every backend that may serve this request is at its limit; retry as told",
            retry_after_ms=_told_wait_ms(answer),
        )
    if status in CLIENT_FAULTS:
        try:
            body = await answer.read(_MOST_ERROR_BYTES)
        finally:
            answer.abort()
        attempt.land(Outcome.CLIENT_ERROR, now_us())
        return _client_fault(flow, attempt.way, status, body)
    answer.abort()
    attempt.land(Outcome.FAILED if status >= 500 else Outcome.CLIENT_ERROR, now_us())
    return Deny(
        DenyCode.UPSTREAM_ERROR,
        f"the backend answered with an error (status {status}); it may have done work, so it was"
        " not asked again",
    )


def _client_fault(flow: Flow, way: Way, status: int, body: bytes) -> Deny:
    """The backend's own words, where they speak of the request; without any name of the backend."""
    try:
        error = _FAULT.decode(body).error
    except (msgspec.DecodeError, RecursionError):
        error = None
    said = error if isinstance(error, str) else error.message if error is not None else None
    param = error.param if isinstance(error, _UpstreamError) else None
    if _TOO_LONG.search(body) is not None:
        return Deny(
            DenyCode.CONTEXT_LENGTH_EXCEEDED,
            "the prompt is longer than the model's context; shorten it or ask a model with more",
            param="messages" if flow.operation == CHAT else None,
        )
    code = DenyCode.REQUEST_TOO_LARGE if status == 413 else DenyCode.INVALID_REQUEST
    return Deny(code, _scrubbed(flow, way, said or "the backend found the request invalid"), param)


_TOO_LONG: Final = re.compile(
    rb"context_length_exceeded|exceed_context_size|context (size|length|window)", re.IGNORECASE
)


def _scrubbed(flow: Flow, way: Way, said: str) -> str:
    """Neither where the backend is nor what it calls itself and its model leaves the house."""
    model = flow.ask.model if flow.ask is not None else "the model"
    place = way.endpoint
    for name, instead in (
        (way.backend.base_url, "the backend"),
        (place.authority, "the backend"),
        (place.host, "the backend"),
        (way.backend.name, "the backend"),
        (way.candidate.upstream_model, model),
    ):
        if len(name) > 2:
            said = re.sub(re.escape(name), lambda _, to=instead: to, said, flags=re.IGNORECASE)  # type: ignore[misc]
    return said[:500]


def asked_rest_ms(answer: Answer) -> int:
    """How long the backend asks to be left alone, at most a minute; 0: it does not say."""
    precise = answer.header(b"retry-after-ms") or b""
    if precise.isdigit() and len(precise) < 9:
        return min(int(precise), _LONGEST_TOLD_WAIT_MS)
    value = answer.header(b"retry-after") or b""
    seconds = int(value) if value.isdigit() and len(value) < 6 else 0
    return min(seconds * 1000, _LONGEST_TOLD_WAIT_MS)


def _told_wait_ms(answer: Answer) -> int:
    return max(500, asked_rest_ms(answer) or 1_000)


_TIMEOUTS: Final = (FirstByteTimeout, IdleTimeout, TotalTimeout)


def error_type(fault: TransportError) -> ErrorType:
    """The few values telemetry knows."""
    if isinstance(fault, (*_TIMEOUTS, ConnectTimeout, PoolTimeout)):
        return ErrorType.TIMEOUT
    if isinstance(fault, (Malformed, AnswerTooLarge)):
        return ErrorType.MALFORMED
    return ErrorType.UPSTREAM_RESET if fault.sent else ErrorType.CONNECT_FAILED


def failed(fault: TransportError) -> Deny:
    """A broken exchange, for the client."""
    if not fault.sent:
        return Deny(
            DenyCode.NO_BACKEND,
            "no backend that may serve this request can be reached; retry shortly",
            retry_after_ms=1_000,
        )
    if isinstance(fault, _TIMEOUTS):
        return Deny(
            DenyCode.UPSTREAM_TIMEOUT,
            "the backend did not answer in time; it may have done work, so it was not asked again",
        )
    return Deny(
        DenyCode.UPSTREAM_ERROR,
        "the backend's answer broke off or was not valid; it may have done work, so it was not"
        " asked again",
    )
