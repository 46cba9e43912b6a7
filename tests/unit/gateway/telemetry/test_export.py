"""gateway.telemetry.export"""

from collections.abc import Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.telemetry import export
from gateway.telemetry.export import ExportThread, TraceExport
from gateway.telemetry.instruments import Instruments
from gateway.telemetry.metrics import Registry
from tests.unit.gateway.telemetry.records import answered, refused

HERE = Resource({"service.name": "meterhouse"})


class Refusing(SpanExporter):
    """An exporter whose collector takes nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.FAILURE


def test_what_waits_is_sent_in_order_and_once() -> None:
    kept = InMemorySpanExporter()
    traces = TraceExport(kept, HERE)
    for status in (429, 403):
        traces.add(refused(status=status))

    traces.send()
    traces.send()

    sent = [
        (span.attributes or {})["http.response.status_code"] for span in kept.get_finished_spans()
    ]
    assert sent == [429, 403]


def test_a_full_queue_drops_and_counts_instead_of_growing() -> None:
    traces = TraceExport(InMemorySpanExporter(), HERE)

    for _ in range(export.WAITING_REQUESTS + 5):
        traces.add(refused())

    assert traces.dropped == 5


def test_what_a_collector_refuses_is_counted() -> None:
    traces = TraceExport(Refusing(), HERE)
    traces.add(refused())

    traces.send()

    assert traces.dropped == 1


def test_closing_sends_what_is_left() -> None:
    kept = InMemorySpanExporter()
    traces = TraceExport(kept, HERE)
    thread = ExportThread(traces, None, 60)
    thread.start()

    traces.add(answered())
    thread.close(within_s=5)

    assert len(kept.get_finished_spans()) == 4


def test_metrics_are_cumulative_in_seconds_with_typed_attributes() -> None:
    registry = Registry()
    Instruments(registry).book(answered())

    data = export.metrics_data(registry.values(), HERE, 1, 2)

    metrics = {m.name: m for m in data.resource_metrics[0].scope_metrics[0].metrics}
    (point,) = metrics["http.client.request.duration"].data.data_points
    assert (point.count, point.sum, point.explicit_bounds[0]) == (1, 0.9, 0.005)  # type: ignore[union-attr]
    assert dict(point.attributes or {}) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": "10.0.0.7",
        "server.port": 8000,
    }
    (charge,) = metrics["meterhouse.usage.charge"].data.data_points
    assert charge.value == 0.0025  # type: ignore[union-attr]
