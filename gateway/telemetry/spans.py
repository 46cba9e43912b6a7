"""Turns a finished, sampled request into spans: server, admission, GenAI client, one a try.

Built from recorded times after the answer has left, so that tracing costs a request nothing on
its way.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import Final, TypeAlias

import msgspec

from billing.meters import Meters
from gateway.telemetry import names
from gateway.telemetry.genai import request_error
from gateway.telemetry.instruments import attempt_error
from gateway.telemetry.record import AttemptRecord, RequestRecord, begun_us

_MICROS: Final = 1_000_000

Attribute: TypeAlias = str | int | float | bool | tuple[str, ...]


class Kind(IntEnum):
    """As OTLP numbers them."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3


class Span(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One span; which trace it is in, its request knows. No `parent_id` is 0."""

    name: str
    kind: Kind
    span_id: int
    parent_id: int
    attributes: dict[str, Attribute]
    started_us: int
    finished_us: int
    error: bool = False
    parent_is_remote: bool = False


def spans_of(record: RequestRecord) -> list[Span]:
    """All spans of one request, parents first."""
    return [*_server(record), *_admission(record), *_client(record)]


def _server(record: RequestRecord) -> Iterator[Span]:
    trace, error = record.trace, request_error(record)
    attributes: dict[str, Attribute] = {
        names.HTTP_METHOD: record.method,
        names.HTTP_ROUTE: record.route,
        names.URL_SCHEME: "http",
        names.HTTP_STATUS: record.status,
        names.REQUEST_ID: record.request_id,
        names.TENANT: record.tenant_id,
        names.TEAM: record.team_id,
        names.KEY: record.key_id,
        names.MODEL: record.model,
        names.CODE: record.code,
        names.ERROR_TYPE: error,
        names.END_BY: record.end_by,
        names.END_PHASE: record.end_phase,
        names.OVERHEAD_SECONDS: record.overhead_us / _MICROS,
        names.REJECTED: tuple(f"{reason}:{count}" for reason, count in record.rejected),
    }
    yield Span(
        name=f"{record.method} {record.route}",
        kind=Kind.SERVER,
        span_id=trace.span_id,
        parent_id=trace.parent_span_id,
        parent_is_remote=trace.parent_span_id != 0,
        attributes=_present(attributes),
        error=record.status >= 500,
        started_us=record.started_us,
        finished_us=record.finished_us,
    )


def _admission(record: RequestRecord) -> Iterator[Span]:
    trace = record.trace
    if not record.admitted_us:
        return
    yield Span(
        name=names.ADMISSION_SPAN,
        kind=Kind.INTERNAL,
        span_id=trace.admission_span_id,
        parent_id=trace.span_id,
        attributes=_present({names.CODE: record.code if not record.attempts else ""}),
        started_us=record.admit_started_us,
        finished_us=record.admitted_us,
    )


def _client(record: RequestRecord) -> Iterator[Span]:
    trace = record.trace
    if not record.attempts:
        return
    last = record.attempts[-1]
    error = request_error(record) or attempt_error(last)
    operation = names.OPERATIONS.get(record.operation, names.OPERATION_OTHER)
    yield Span(
        name=f"{operation} {record.upstream_model}",
        kind=Kind.CLIENT,
        span_id=trace.client_span_id,
        parent_id=trace.span_id,
        attributes=_client_attributes(record, operation, error),
        error=bool(error),
        started_us=begun_us(record.attempts),
        finished_us=last.finished_us,
    )
    for attempt in record.attempts:
        yield _attempt(record, attempt)


def _client_attributes(record: RequestRecord, operation: str, error: str) -> dict[str, Attribute]:
    last = record.attempts[-1]
    attributes: dict[str, Attribute] = {
        names.OPERATION: operation,
        names.PROVIDER: record.provider,
        names.REQUEST_MODEL: record.upstream_model,
        names.RESPONSE_MODEL: record.response_model,
        names.RESPONSE_ID: record.response_id,
        names.SERVER_ADDRESS: last.server_address,
        names.SERVER_PORT: last.server_port,
        names.REQUEST_STREAM: record.stream,
        names.REQUEST_CHOICES: record.choices if record.choices != 1 else 0,
        names.REQUEST_MAX_TOKENS: record.max_tokens,
        names.ERROR_TYPE: error,
        names.ATTEMPTS: len(record.attempts),
        names.MODEL: record.model,
        names.BACKEND: last.backend_id,
        names.BACKEND_REGION: last.region,
    }
    if operation != "embeddings":
        attributes[names.FINISH_REASONS] = _finish_reasons(record)
    if record.stream and last.first_byte_us:
        waited_us = last.first_byte_us - begun_us(record.attempts)
        attributes[names.FIRST_CHUNK_SECONDS] = waited_us / _MICROS
    present = _present(attributes)
    if record.provenance is not None:
        present[names.PROVENANCE] = record.provenance.value
        present |= _usage(record.meters, record.reasoning, operation)
    return present


def _usage(meters: Meters, reasoning: int, operation: str) -> dict[str, Attribute]:
    """A 0 is a figure here, except for kinds of tokens the request never had."""
    usage: dict[str, Attribute] = {names.INPUT_TOKENS: meters.all_input}
    if operation != "embeddings":
        usage[names.OUTPUT_TOKENS] = meters.output
    optional: dict[str, Attribute] = {
        names.CACHE_READ_TOKENS: meters.cache_read,
        names.CACHE_WRITE_TOKENS: meters.cache_write_5m + meters.cache_write_1h,
        names.REASONING_TOKENS: reasoning,
    }
    return usage | _present(optional)


def _finish_reasons(record: RequestRecord) -> tuple[str, ...]:
    """One a choice; `error` where one was expected and never came."""
    missing = record.choices - len(record.finish_reasons)
    return record.finish_reasons + ("error",) * missing


def _attempt(record: RequestRecord, attempt: AttemptRecord) -> Span:
    trace, error, number = record.trace, attempt_error(attempt), attempt.number
    attributes: dict[str, Attribute] = {
        names.HTTP_METHOD: record.method,
        names.SERVER_ADDRESS: attempt.server_address,
        names.SERVER_PORT: attempt.server_port,
        names.HTTP_STATUS: attempt.status,
        names.HTTP_RESEND: number,
        names.ERROR_TYPE: error,
        names.BACKEND: attempt.backend_id,
        names.BACKEND_REGION: attempt.region,
        names.UPSTREAM_REQUEST_ID: attempt.upstream_request_id,
    }
    return Span(
        name=record.method,
        kind=Kind.CLIENT,
        span_id=trace.attempt_span_id(number),
        parent_id=trace.client_span_id,
        attributes=_present(attributes),
        error=bool(error),
        started_us=attempt.started_us,
        finished_us=attempt.finished_us,
    )


def _present(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    """Without what is empty, false or 0: such attributes would only say that there is nothing."""
    return {name: value for name, value in attributes.items() if value}
