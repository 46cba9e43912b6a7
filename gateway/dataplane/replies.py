"""What the gateway adds to an answer: request id, region, grant, what is left, where time went."""

from typing import Final

import msgspec
from litestar.types import Send

from billing.money import format_counter
from gateway.dataplane.admit import rates
from gateway.dataplane.envelope import EMBEDDINGS
from gateway.dataplane.flow import Flow
from gateway.errors import Rendered
from gateway.stores.redis.holds import MONEY

Headers = list[tuple[bytes, bytes]]


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
    for rate in rates(flow, granted):
        kind = rate.kind.encode()
        headers.append((b"x-ratelimit-limit-" + kind, b"%d" % rate.limit))
        headers.append((b"x-ratelimit-remaining-" + kind, b"%d" % rate.remaining))
        headers.append((b"x-ratelimit-reset-" + kind, _seconds(rate.reset_us)))
    return headers


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


_KEY: Final = "key"


def _left_of_own_budget(flow: Flow) -> bytes | None:
    standing, granted, principal = flow.standing, flow.granted, flow.principal
    if standing is None or granted is None or principal is None:
        return None
    own = [
        left
        for meter, left in zip(standing.meters, granted.remaining, strict=False)
        if meter.level == _KEY and meter.unit == MONEY and left >= 0
    ]
    if not own:
        return None
    currency = principal.tenant.currency
    return f"{format_counter(min(own), currency)} {currency}".encode()


def _ms(us: int) -> bytes:
    return b"%d.%03d" % divmod(us, 1000)


def _seconds(us: int) -> bytes:
    return b"%d.%03ds" % divmod(us // 1000, 1000)
