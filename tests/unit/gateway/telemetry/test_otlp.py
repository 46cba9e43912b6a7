"""gateway.telemetry.otlp: what a collector reads is what the SDK's own encoder would have sent."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from billing.meters import Meters
from gateway.telemetry import names, otlp
from gateway.telemetry.export import resource_of
from gateway.telemetry.otlp import Envelope
from gateway.telemetry.record import RequestRecord, TraceIds
from gateway.telemetry.spans import Kind, Span, spans_of
from tests.unit.gateway.telemetry.records import AT_US, answered, attempt, refused, streamed

DOWN = attempt(backend_id="be_us", status=0, error_type="connect_failed", first_byte_us=0)
CALLED = TraceIds(trace_id=7, span_id=(1 << 64) - 9, parent_span_id=42, sampled=True)
RECORDS = (
    answered(),
    streamed(
        attempts=(DOWN, attempt(number=1, started_us=AT_US + 3_000, upstream_request_id="up-1"))
    ),
    refused(trace=CALLED, rejected=(("residency", 2), ("breaker_open", 1))),
    answered(status=503, attempts=()),
    answered(operation="embeddings", meters=Meters(input=9), finish_reasons=()),
    answered(route="/v1/" + "long/" * 4000, model="modèle-中文-🦜", max_tokens=1 << 40),
)
KINDS = {
    Kind.INTERNAL: SpanKind.INTERNAL,
    Kind.SERVER: SpanKind.SERVER,
    Kind.CLIENT: SpanKind.CLIENT,
}


def the_sdks(trace_id: int, span: Span, resource: Resource) -> ReadableSpan:
    """The same span as an object of the SDK."""

    def context(span_id: int, *, remote: bool = False) -> SpanContext:
        return SpanContext(trace_id, span_id, remote, TraceFlags(TraceFlags.SAMPLED))

    parent = context(span.parent_id, remote=span.parent_is_remote) if span.parent_id else None
    return ReadableSpan(
        span.name,
        context=context(span.span_id),
        parent=parent,
        resource=resource,
        attributes=span.attributes,
        kind=KINDS[span.kind],
        status=Status(StatusCode.ERROR if span.error else StatusCode.UNSET),
        start_time=span.started_us * 1000,
        end_time=span.finished_us * 1000,
        instrumentation_scope=InstrumentationScope(names.SCOPE),
    )


def expected(resource: Resource, *traces: tuple[int, list[Span]]) -> ExportTraceServiceRequest:
    encoded = encode_spans(
        [the_sdks(trace_id, span, resource) for trace_id, spans in traces for span in spans]
    )
    return ExportTraceServiceRequest.FromString(encoded.SerializePartialToString())


def read(body: bytes) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(body)


@pytest.mark.parametrize("record", RECORDS)
def test_a_request_reads_as_the_sdks(record: RequestRecord) -> None:
    resource = resource_of("data-0-1", "meterhouse", "0.1.0")
    trace = record.trace.trace_id, spans_of(record)

    assert read(Envelope(resource).body([trace])) == expected(resource, trace)


def test_a_batch_reads_as_the_sdks_even_the_second_time() -> None:
    resource = Resource({"service.name": "meterhouse", "cpus": 2}, "https://schema.example/1")
    envelope = Envelope(resource)
    traces = [(record.trace.trace_id, spans_of(record)) for record in RECORDS]

    for _ in range(2):
        assert read(envelope.body(traces)) == expected(resource, *traces)


VALUES = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.lists(st.text(st.characters(exclude_categories=["Cs"]))).map(tuple)
)


@given(st.dictionaries(st.sampled_from(["a", names.REQUEST_ID, "b" * 200]), VALUES))
def test_any_attribute_reads_as_the_sdks(attributes: dict[str, Any]) -> None:
    span = Span(
        name="x",
        kind=Kind.SERVER,
        span_id=1,
        parent_id=0,
        attributes=attributes,
        started_us=AT_US,
        finished_us=AT_US,
    )
    here = Resource({})

    assert read(Envelope(here).body([(9, [span])])) == expected(here, (9, [span]))


def test_1_and_true_are_kept_apart() -> None:
    assert otlp._kept("n", 1) != otlp._kept("n", True)
    assert otlp._kept("n", 1) != otlp._kept("n", 1.0)


def test_half_a_character_costs_itself_and_not_the_batch() -> None:
    (span,) = spans_of(refused(model="half \ud83d"))

    shown = read(Envelope(Resource({})).body([(9, [span])]))

    (sent,) = shown.resource_spans[0].scope_spans[0].spans
    values = {each.key: each.value.string_value for each in sent.attributes}
    assert values[names.MODEL] == "half ?"
