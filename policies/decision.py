"""Refusals as values. What HTTP makes of a `Deny` is the business of gateway.errors alone."""

from enum import StrEnum
from typing import final

import msgspec


class DenyCode(StrEnum):
    """Why a request was refused; the same words the client reads in `error.code`."""

    INVALID_API_KEY = "invalid_api_key"
    INVALID_REQUEST = "invalid_request"  # param names the field
    KEY_BLOCKED = "key_blocked"  # for a time: it was caught in a loop
    MODEL_NOT_FOUND = "model_not_found"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    UNSUPPORTED_CAPABILITY = "unsupported_capability"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    RESIDENCY_VIOLATION = "residency_violation"
    COST_CEILING_EXCEEDED = "cost_ceiling_exceeded"
    UNPRICED_MODEL = "unpriced_model"
    REQUEST_TOO_LARGE = "request_too_large"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    INSUFFICIENT_QUOTA = "insufficient_quota"
    IDEMPOTENCY_IN_FLIGHT = "idempotency_in_flight"
    IDEMPOTENCY_FINISHED = "idempotency_finished"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    NO_BACKEND = "no_backend"
    OVERLOADED = "overloaded"
    QUOTA_UNAVAILABLE = "quota_unavailable"
    JOURNAL_UNAVAILABLE = "journal_unavailable"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    RESTARTING = "server_restarting"
    INTERNAL_ERROR = "internal_error"


@final
class Deny(msgspec.Struct, frozen=True):
    """A refusal: what was wrong and what to do next, a sentence each, for the caller's eyes.

    Final, so that `type(found) is Deny` tells it: `isinstance` would ask the metaclass each time,
    which costs ten times as much of a request that is refused by nobody.
    """

    code: DenyCode
    message: str
    param: str | None = None  # the request field at fault
    retry_after_ms: int | None = None  # None: retrying unchanged will not help
