"""What the gateway adds to an answer: request id, region, grant, what is left, where time went."""

from typing import Final

import msgspec
from litestar.types import Send

from billing.money import format_counter
from gateway.dataplane.envelope import EMBEDDINGS
from gateway.dataplane.flow import Flow
from gateway.dataplane.levels import MINUTE_US, RateLimit
from gateway.errors import Rendered

Headers = list[tuple[bytes, bytes]]

_FIGURES: Final = (b"limit", b"remaining", b"reset")


def answer_headers(flow: Flow, content_type: bytes) -> Headers:
    """Headers of a 200. The backend's own headers are not passed on: they name it."""
    attempt = flow.attempts[-1]
    headers: Headers = [
        (b"content-type", content_type),
        (b"x-request-id", flow.arrival.request_id.encode()),
        (b"x-meterhouse-backend-region", attempt.way.candidate.region.encode()),
        (b"server-timing", b"gateway;dur=%s" % _ms(overhead_us(flow))),
    ]
    return headers + limit_headers(flow)


def limit_headers(flow: Flow) -> Headers:
    """The clamp, what is left of the key's own budget, and the tightest rate limits."""
    granted = flow.granted
    if granted is None:
        return []
    headers: Headers = []
    asked = flow.envelope.max_output if flow.envelope is not None else None
    if flow.operation != EMBEDDINGS and granted.output_tokens != asked:
        headers.append((b"x-meterhouse-max-tokens", b"%d" % granted.output_tokens))
    left = _left_of_own_budget(flow)
    if left:
        headers.append((b"x-meterhouse-budget-remaining", left))
    if granted.gate_wait_us and flow.levels is not None:
        _add_rates(headers, flow.levels.per_minute, granted.gate_wait_us)
    return headers


def _add_rates(headers: Headers, limits: tuple[RateLimit, ...], waits_us: tuple[int, ...]) -> None:
    """Of each kind the tightest limit: the one with the least left of its burst."""
    tightest: dict[str, tuple[int, int, int]] = {}
    for limit, wait_us in zip(limits, waits_us, strict=False):
        left = (limit.burst_us - wait_us) * limit.per_minute // MINUTE_US
        known = tightest.get(limit.kind)
        if known is None or left < known[0]:
            tightest[limit.kind] = (left, limit.per_minute, wait_us)
    for kind, (left, per_minute, wait_us) in tightest.items():
        limit_name, left_name, reset_name = _RATE_NAMES[kind]
        headers += (
            (limit_name, b"%d" % per_minute),
            (left_name, b"%d" % (max(0, left))),
            (reset_name, _seconds(wait_us)),
        )


_RATE_NAMES: Final = {
    kind: tuple(b"x-ratelimit-%s-%s" % (name, kind.encode()) for name in _FIGURES)
    for kind in ("requests", "tokens")
}


def overhead_us(flow: Flow) -> int:
    """Our own time until the request left, plus from the answer's arrival until now."""
    first, last = flow.attempts[0], flow.attempts[-1]
    before = first.started_us - flow.arrival.arrived_us
    after = flow.arrival.now_us() - (last.finished_us or last.content_us or last.head_us)
    return max(0, before) + max(0, after)


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
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _left_of_own_budget(flow: Flow) -> bytes | None:
    standing, granted, principal = flow.standing, flow.granted, flow.principal
    if standing is None or granted is None or principal is None or not standing.own:
        return None
    left = min([granted.remaining[place] for place in standing.own])
    currency = principal.tenant.currency
    return f"{format_counter(left, currency)} {currency}".encode()


def _ms(us: int) -> bytes:
    return b"%d.%03d" % divmod(us, 1000)


def _seconds(us: int) -> bytes:
    return b"%d.%03ds" % divmod(us // 1000, 1000)
