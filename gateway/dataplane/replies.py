"""What the gateway adds to an answer: request id, region, grant, what is left, where time went."""

from typing import Final

import msgspec
from litestar.types import Send

from billing.money import format_counter
from gateway import ids
from gateway.dataplane.envelope import EMBEDDINGS
from gateway.dataplane.flow import Flow
from gateway.dataplane.levels import MINUTE_US, RateLimit
from gateway.errors import Rendered

Headers = list[tuple[bytes, bytes]]

JSON: Final = b"application/json"
EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"
ORIGINAL: Final = b"x-meterhouse-original-request"  # whose idempotency key was repeated
_FIGURES: Final = (b"limit", b"remaining", b"reset")


def answer_headers(flow: Flow, content_type: bytes) -> Headers:
    """Headers of a 200. The backend's own headers are not passed on: they name it."""
    attempt = flow.attempts[-1]
    headers: Headers = [
        (b"content-type", content_type),
        (b"x-request-id", flow.arrival.request_id.encode()),
        attempt.way.told_region,
        (b"server-timing", b"gateway;dur=%d.%03d" % divmod(overhead_us(flow), 1000)),
    ]
    if flow.arrival.explain:
        headers.append(_explained(flow))
    _add_limits(headers, flow)
    return headers


def limit_headers(flow: Flow) -> Headers:
    """The clamp, what is left of the key's own budget, and the tightest rate limits; for whoever
    was not let in because of his idempotency key, who was.
    """
    if flow.original_id:
        return [(ORIGINAL, flow.original_id.encode())]
    headers: Headers = []
    if flow.arrival.explain and flow.decision:
        headers.append(_explained(flow))
    _add_limits(headers, flow)
    return headers


def _explained(flow: Flow) -> tuple[bytes, bytes]:
    return b"x-meterhouse-decision", ids.decision_of(flow.arrival.request_id).encode()


def _add_limits(headers: Headers, flow: Flow) -> None:
    granted, envelope, standing = flow.granted, flow.envelope, flow.standing
    if granted is None:
        return
    if flow.degraded_from:
        headers.append((b"x-meterhouse-degraded-from", flow.degraded_from.encode()))
    asked = envelope.max_output if envelope is not None else None
    if granted.output_tokens != asked and flow.operation != EMBEDDINGS:
        headers.append((b"x-meterhouse-max-tokens", b"%d" % granted.output_tokens))
    if standing is not None and standing.own and granted.remaining and flow.principal is not None:
        left = min(map(granted.remaining.__getitem__, standing.own))
        currency = flow.principal.tenant.currency
        told = f"{format_counter(left, currency)} {currency}".encode()
        headers.append((b"x-meterhouse-budget-remaining", told))
    if granted.gate_wait_us and flow.levels is not None:
        for kind, limits in flow.levels.kinds:
            headers += _rates(kind, limits, granted.gate_wait_us)


def _rates(
    kind: str, limits: tuple[tuple[int, RateLimit], ...], waits_us: tuple[int, ...]
) -> Headers:
    """Of limits of one kind the tightest: the one with the least left of its burst. Each comes with
    the place of its gate.
    """
    tightest: RateLimit | None = None
    left = wait_us = 0
    for place, limit in limits:
        one = (limit.burst_us - waits_us[place]) * limit.per_minute // MINUTE_US  # as limit.left
        if tightest is None or one < left:
            tightest, left, wait_us = limit, one, waits_us[place]
    if tightest is None:
        return []
    limit_name, left_name, reset_name = _RATE_NAMES[kind]
    return [
        (limit_name, tightest.told),
        (left_name, b"%d" % left if left > 0 else b"0"),
        (reset_name, b"%d.%03ds" % divmod(wait_us // 1000, 1000)),
    ]


_RATE_NAMES: Final = {
    kind: tuple(b"x-ratelimit-%s-%s" % (name, kind.encode()) for name in _FIGURES)
    for kind in ("requests", "tokens")
}


def overhead_us(flow: Flow) -> int:
    """Our own time until the request left, plus from the answer's arrival until now."""
    attempts = flow.attempts
    first, last = attempts[0], attempts[-1]
    if first.number:  # hedged: the first to be asked is not the first to have ended
        first = min(attempts, key=lambda each: each.number)
    before = first.started_us - flow.arrival.arrived_us - flow.queued_us
    after = flow.arrival.now_us() - (last.finished_us or last.content_us or last.head_us)
    return (before if before > 0 else 0) + (after if after > 0 else 0)


async def send_rendered(send: Send, rendered: Rendered, extra: Headers) -> None:
    """A whole answer of our own."""
    await send(
        {
            "type": "http.response.start",
            "status": rendered.status,
            "headers": [*rendered.headers, *extra],
        }
    )
    await send({"type": "http.response.body", "body": rendered.body, "more_body": False})


async def send_json(send: Send, status: int, value: object, request_id: str) -> None:
    body = msgspec.json.encode(value)
    headers = [
        (b"content-type", JSON),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
