"""gateway.telemetry.export"""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.resources import Resource

from gateway.telemetry import export
from gateway.telemetry.booking import Booking
from gateway.telemetry.export import ExportThread, SpanPost, TraceExport
from gateway.telemetry.metrics import Registry
from gateway.telemetry.names import Convention
from tests.unit.gateway.telemetry.collector import Collector, collector
from tests.unit.gateway.telemetry.readings import none_lost
from tests.unit.gateway.telemetry.records import answered, refused

HERE = Resource({"service.name": "meterhouse"})


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as listening:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", listening.url)
        yield listening


def statuses(there: Collector) -> list[int]:
    return [
        attribute.value.int_value
        for span in there.spans()
        for attribute in span.attributes
        if attribute.key == "http.response.status_code"
    ]


def test_what_waits_is_sent_in_order_and_once(there: Collector) -> None:
    traces = TraceExport(SpanPost(), HERE)
    for status in (429, 403):
        traces.add(refused(status=status))

    traces.send()
    traces.send()
    traces.shutdown()

    assert statuses(there) == [429, 403]
    assert len(there.bodies["/v1/traces"]) == 1


def test_the_loop_gets_a_turn_after_every_eight_requests_and_the_collector_few_posts(
    there: Collector,
) -> None:
    traces = TraceExport(SpanPost(), HERE)
    for status in range(400, 700):
        traces.add(refused(status=status))
    rests = list[int]()

    traces.send(lambda: rests.append(len(there.bodies["/v1/traces"])))
    traces.shutdown()

    assert statuses(there) == list(range(400, 700))
    assert rests == [0] * 32 + [1] * 6  # 256 requests, then 44


def test_a_full_queue_drops_and_counts_instead_of_growing(there: Collector) -> None:
    traces = TraceExport(SpanPost(), HERE)

    for _ in range(export.WAITING_REQUESTS + 5):
        traces.add(refused())
    traces.shutdown()

    assert traces.dropped == 5


@pytest.mark.parametrize("answer", [302, 400])
def test_what_a_collector_does_not_take_is_counted(there: Collector, answer: int) -> None:
    there.answer = answer
    traces = TraceExport(SpanPost(), HERE)
    traces.add(refused())

    traces.send()
    traces.shutdown()

    assert traces.dropped == 1


def test_closing_sends_what_is_left(there: Collector) -> None:
    traces = TraceExport(SpanPost(), HERE)
    thread = ExportThread(traces, None, 60)
    thread.start()

    traces.add(answered())
    thread.close(within_s=5)

    assert len(there.spans()) == 4


def test_spans_go_where_and_how_the_environment_says(
    there: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-scope=ours")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    traces = TraceExport(SpanPost(), HERE)
    traces.add(answered())

    traces.send()
    traces.shutdown()

    assert traces.dropped == 0
    (headers,) = there.heads
    assert headers["x-scope"] == "ours"
    assert headers["content-encoding"] == "gzip"
    assert headers["content-type"] == "application/x-protobuf"


def test_metrics_are_cumulative_in_seconds_with_typed_attributes() -> None:
    registry = Registry()
    Booking(registry, Convention.BOTH, none_lost).book(answered())

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
