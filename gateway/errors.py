"""The one table from refusals and faults to what a client reads: status, retry signal, body per
surface.

    Deny (policies.decision)             a refusal, a value until it gets here
    StoreUnavailable, SpoolUnavailable   raised by the stores, become a Deny in the data plane
    TransportError (backends.failures)   raised by the transport, becomes a Deny there too

Messages are written for the caller: what was wrong, what to do next. They never name a backend.
"""

import random
from typing import Final

import msgspec

from policies.decision import Deny, DenyCode


class Shape(msgspec.Struct, frozen=True):
    """How one refusal looks on the wire."""

    status: int
    openai_type: str
    retry: bool | None = None  # x-should-retry; None = say nothing, the SDK's own rule is right


_SHAPES: Final[dict[DenyCode, Shape]] = {
    DenyCode.INVALID_API_KEY: Shape(401, "authentication_error"),
    DenyCode.INVALID_REQUEST: Shape(400, "invalid_request_error"),
    DenyCode.KEY_BLOCKED: Shape(403, "permission_error", retry=False),
    DenyCode.MODEL_NOT_FOUND: Shape(404, "invalid_request_error"),
    DenyCode.MODEL_NOT_ALLOWED: Shape(403, "permission_error"),
    DenyCode.UNSUPPORTED_CAPABILITY: Shape(400, "invalid_request_error"),
    DenyCode.CONTEXT_LENGTH_EXCEEDED: Shape(400, "invalid_request_error"),
    DenyCode.RESIDENCY_VIOLATION: Shape(403, "permission_error"),
    DenyCode.COST_CEILING_EXCEEDED: Shape(403, "permission_error"),
    DenyCode.UNPRICED_MODEL: Shape(403, "permission_error"),
    DenyCode.REQUEST_TOO_LARGE: Shape(413, "invalid_request_error"),
    DenyCode.RATE_LIMIT_EXCEEDED: Shape(429, "rate_limit_error"),
    DenyCode.INSUFFICIENT_QUOTA: Shape(429, "insufficient_quota", retry=False),
    DenyCode.IDEMPOTENCY_IN_FLIGHT: Shape(409, "idempotency_error"),
    DenyCode.IDEMPOTENCY_FINISHED: Shape(409, "idempotency_error", retry=False),
    DenyCode.IDEMPOTENCY_MISMATCH: Shape(422, "idempotency_error", retry=False),
    DenyCode.NO_BACKEND: Shape(503, "server_error"),
    DenyCode.OVERLOADED: Shape(503, "server_error"),
    DenyCode.QUOTA_UNAVAILABLE: Shape(503, "server_error"),
    DenyCode.JOURNAL_UNAVAILABLE: Shape(503, "server_error"),
    DenyCode.UPSTREAM_ERROR: Shape(502, "server_error", retry=False),
    DenyCode.UPSTREAM_TIMEOUT: Shape(504, "server_error", retry=False),
    DenyCode.RESTARTING: Shape(503, "server_error"),
    DenyCode.INTERNAL_ERROR: Shape(500, "server_error", retry=False),
}

LONGEST_POLITE_WAIT_MS: Final = 60_000  # past this an SDK that sleeps as told would seem to hang


RESTARTING: Final = Deny(
    DenyCode.RESTARTING, "this gateway is restarting; send the request again", retry_after_ms=1_000
)
INTERNAL: Final = Deny(
    DenyCode.INTERNAL_ERROR,
    "the gateway failed on this request; report the x-request-id to whoever runs it",
)


class Rendered(msgspec.Struct, frozen=True):
    """A refusal ready for the wire."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def openai_error(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    """OpenAI's error envelope; all four keys are always there."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return msgspec.json.encode({"error": error})


def status_of(code: DenyCode) -> int:
    return _SHAPES[code].status


def render_openai(deny: Deny, request_id: str) -> Rendered:
    """The refusal as an OpenAI client expects it."""
    shape = _SHAPES[deny.code]
    body = openai_error(deny.message, shape.openai_type, deny.param, deny.code.value)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
        *_retry_headers(deny, shape),
    ]
    return Rendered(shape.status, headers, body)


def error_event(deny: Deny) -> bytes:
    """The refusal inside a stream that has already begun (L13): the caller closes after it."""
    shape = _SHAPES[deny.code]
    body = openai_error(deny.message, shape.openai_type, deny.param, deny.code.value)
    return b"data: " + body + b"\n\n"


def _retry_headers(deny: Deny, shape: Shape) -> list[tuple[bytes, bytes]]:
    wait = deny.retry_after_ms
    if wait is None:
        return (
            []
            if shape.retry is None
            else [(b"x-should-retry", b"true" if shape.retry else b"false")]
        )
    if shape.status == 503:
        # A fleet of clients told the same second comes back in the same second.
        wait += random.randrange(wait // 2 + 500)  # noqa: S311 - jitter, not a secret
    headers = [
        (b"retry-after", b"%d" % -(-wait // 1000)),
        (b"retry-after-ms", b"%d" % wait),
    ]
    if wait > LONGEST_POLITE_WAIT_MS or shape.retry is False:
        headers.append((b"x-should-retry", b"false"))
    return headers
