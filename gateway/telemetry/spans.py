"""Turns a finished, sampled request into spans: server, admission, GenAI client, one a try.

Built from recorded times after the answer has left, so that tracing costs a request nothing on
its way.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from billing.meters import Meters
from gateway.telemetry import names
from gateway.telemetry.genai import request_error
from gateway.telemetry.instruments import attempt_error
from gateway.telemetry.record import AttemptRecord, RequestRecord, TraceIds

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SCOPE: Final = InstrumentationScope(names.SCOPE)
_ERROR: Final = Status(StatusCode.ERROR)
_UNSET: Final = Status(StatusCode.UNSET)
_MICROS: Final = 1_000_000
_NANOS_OF_A_MICRO: Final = 1000

Attribute = str | int | float | bool | Sequence[str]


def spans_of(record: RequestRecord, resource: Resource) -> list[ReadableSpan]:
    """All spans of one request, parents first."""
    return [*_server(record, resource), *_admission(record, resource), *_client(record, resource)]


def _server(record: RequestRecord, resource: Resource) -> Iterator[ReadableSpan]:
    trace, error = record.trace, request_error(record)
    parent = _context(trace, trace.parent_span_id, remote=True) if trace.parent_span_id else None
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
    yield ReadableSpan(
        f"{record.method} {record.route}",
        context=_context(trace, trace.span_id),
        parent=parent,
        resource=resource,
        attributes=_present(attributes),
        kind=SpanKind.SERVER,
        status=_ERROR if record.status >= 500 else _UNSET,
        start_time=record.started_us * _NANOS_OF_A_MICRO,
        end_time=record.finished_us * _NANOS_OF_A_MICRO,
        instrumentation_scope=_SCOPE,
    )


def _admission(record: RequestRecord, resource: Resource) -> Iterator[ReadableSpan]:
    trace = record.trace
    if not record.admitted_us:
        return
    yield ReadableSpan(
        names.ADMISSION_SPAN,
        context=_context(trace, trace.admission_span_id),
        parent=_context(trace, trace.span_id),
        resource=resource,
        attributes=_present({names.CODE: record.code if not record.attempts else ""}),
        kind=SpanKind.INTERNAL,
        start_time=record.admit_started_us * _NANOS_OF_A_MICRO,
        end_time=record.admitted_us * _NANOS_OF_A_MICRO,
        instrumentation_scope=_SCOPE,
    )


def _client(record: RequestRecord, resource: Resource) -> Iterator[ReadableSpan]:
    trace = record.trace
    if not record.attempts:
        return
    first, last = record.attempts[0], record.attempts[-1]
    error = request_error(record) or attempt_error(last)
    operation = names.OPERATIONS.get(record.operation, names.OPERATION_OTHER)
    yield ReadableSpan(
        f"{operation} {record.upstream_model}",
        context=_context(trace, trace.client_span_id),
        parent=_context(trace, trace.span_id),
        resource=resource,
        attributes=_client_attributes(record, operation, error),
        kind=SpanKind.CLIENT,
        status=_ERROR if error else _UNSET,
        start_time=first.started_us * _NANOS_OF_A_MICRO,
        end_time=last.finished_us * _NANOS_OF_A_MICRO,
        instrumentation_scope=_SCOPE,
    )
    for number, attempt in enumerate(record.attempts):
        yield _attempt(record, number, attempt, resource)


def _client_attributes(record: RequestRecord, operation: str, error: str) -> dict[str, Attribute]:
    first, last = record.attempts[0], record.attempts[-1]
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
        waited_us = last.first_byte_us - first.started_us
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


def _attempt(
    record: RequestRecord, number: int, attempt: AttemptRecord, resource: Resource
) -> ReadableSpan:
    trace, error = record.trace, attempt_error(attempt)
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
    return ReadableSpan(
        record.method,
        context=_context(trace, trace.attempt_span_id(number)),
        parent=_context(trace, trace.client_span_id),
        resource=resource,
        attributes=_present(attributes),
        kind=SpanKind.CLIENT,
        status=_ERROR if error else _UNSET,
        start_time=attempt.started_us * _NANOS_OF_A_MICRO,
        end_time=attempt.finished_us * _NANOS_OF_A_MICRO,
        instrumentation_scope=_SCOPE,
    )


def _context(trace: TraceIds, span_id: int, *, remote: bool = False) -> SpanContext:
    return SpanContext(trace.trace_id, span_id, remote, _SAMPLED)


def _present(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    """Without what is empty, false or 0: such attributes would only say that there is nothing."""
    return {name: value for name, value in attributes.items() if value}
