"""Sends sampled traces and all metrics to a collector, on a thread of its own.

Nobody waits for the collector: what cannot be sent is dropped and counted. This module and what it
imports are loaded only where an exporter is configured.
"""

import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from gateway import clock
from gateway.telemetry import names
from gateway.telemetry.metrics import COUNTER, HISTOGRAM, FamilyValues, Labels, Registry
from gateway.telemetry.otlp import Envelope, encoded
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.spans import spans_of

WAITING_REQUESTS: Final = 4096
_POST_REQUESTS: Final = 256  # 400 KB; to post costs 2 ms of the interpreter, however little it is
_LOT_REQUESTS: Final = 8  # encoding them keeps the interpreter for 0.3 ms: what the loop may wait
_REST_SECONDS: Final = 0.001  # between lots, for the loop to go on
_EVERY_SECONDS: Final = 1.0
_SCOPE: Final = InstrumentationScope(names.SCOPE)


class SpanPost(OTLPSpanExporter):
    """The SDK's exporter for spans that are bytes already.

    Endpoint, headers, timeout, compression, certificates and retries stay the SDK's, read from
    OTEL_EXPORTER_OTLP_* as its users know them. Its public way in takes spans only, as objects, and
    encoding those is most of what a sampled request costs; so this goes in one step below, to the
    client that the SDK hands its own bytes. That step has no public name: the version is pinned,
    and the tests send to a real collector.
    """

    def post(self, body: bytes) -> bool:
        """Whether the collector took it. Returns when it has answered or was given up. The SDK goes
        to no other place that an answer names, but takes such an answer for success.
        """
        status = self._client.export(body).status_code
        return status is not None and 200 <= status < 300


class TraceExport:
    """A bounded queue of sampled requests and the thread that turns them into spans."""

    def __init__(self, exporter: SpanPost, resource: Resource) -> None:
        self._exporter = exporter
        self._envelope = Envelope(resource)
        self._waiting: deque[RequestRecord] = deque()
        self._sending = threading.Lock()
        self._under_way = 0  # requests in the post that the collector has not answered
        self.dropped = 0

    def add(self, record: RequestRecord) -> None:
        if len(self._waiting) >= WAITING_REQUESTS:
            self.dropped += 1
        else:
            self._waiting.append(record)

    def send(self, rest: Callable[[], object] = lambda: None) -> None:
        """Sends what waits now; returns when the collector has answered or given up. Rests between
        lots: a thread that works without a pause takes every other turn from the loop's.
        """
        with self._sending:
            while self._waiting:
                count, lots = 0, []
                while self._waiting and count < _POST_REQUESTS:
                    lot = self._lot()
                    lots.append(encoded((r.trace.trace_id, spans_of(r)) for r in lot))
                    count += len(lot)
                    self._under_way = count
                    rest()
                if not self._exporter.post(self._envelope.around(b"".join(lots))):
                    self.dropped += count
                self._under_way = 0

    def _lot(self) -> list[RequestRecord]:
        waiting = self._waiting
        return [waiting.popleft() for _ in range(min(_LOT_REQUESTS, len(waiting)))]

    def give_up(self) -> None:
        """Counts what has not been taken by now; nobody waits for it any more."""
        self.dropped += len(self._waiting) + self._under_way

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call] # the SDK's own annotation is missing


class MetricExport:
    """Pushes this process's own registry; the collector adds processes up."""

    def __init__(self, exporter: MetricExporter, resource: Resource, registry: Registry) -> None:
        self._exporter = exporter
        self._resource = resource
        self._registry = registry
        self._started_ns = clock.now_us() * 1000

    def send(self) -> None:
        self._exporter.export(
            metrics_data(
                self._registry.values(), self._resource, self._started_ns, clock.now_us() * 1000
            ),
            timeout_millis=5000,
        )

    def shutdown(self) -> None:
        self._exporter.shutdown()


class ExportThread:
    """Runs both until `close`, which waits a bounded time for the last batch."""

    def __init__(
        self, traces: TraceExport | None, metrics: MetricExport | None, metrics_every_s: float
    ) -> None:
        self._traces = traces
        self._metrics = metrics
        self._metrics_every_s = metrics_every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry-export", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self, within_s: float) -> None:
        """A collector that does not answer costs `within_s`; the thread is a daemon."""
        self._over.set()
        self._thread.join(within_s)
        if self._thread.is_alive() and self._traces is not None:
            self._traces.give_up()
        for exporter in (self._traces, self._metrics):
            if exporter is not None:
                exporter.shutdown()

    def _run(self) -> None:
        due_us = clock.monotonic_us()
        while not self._over.wait(_EVERY_SECONDS):
            self._send(traces=True, metrics=clock.monotonic_us() >= due_us)
            if clock.monotonic_us() >= due_us:
                due_us = clock.monotonic_us() + int(self._metrics_every_s * 1_000_000)
        self._send(traces=True, metrics=True)

    def _send(self, *, traces: bool, metrics: bool) -> None:
        """An exporter that raises must not end the thread; the next turn tries again."""
        if traces and self._traces is not None:
            with suppress(Exception):
                self._traces.send(lambda: self._over.wait(_REST_SECONDS))
        if metrics and self._metrics is not None:
            with suppress(Exception):
                self._metrics.send()


def otlp(
    instance: str, service_name: str, version: str, registry: Registry
) -> tuple[TraceExport, MetricExport]:
    """Exporters to where OTEL_EXPORTER_OTLP_* says; the SDK reads those variables itself."""
    resource = resource_of(instance, service_name, version)
    return (
        TraceExport(SpanPost(), resource),
        MetricExport(OTLPMetricExporter(), resource, registry),
    )


def resource_of(instance: str, service_name: str, version: str) -> Resource:
    """OTEL_RESOURCE_ATTRIBUTES are added to these."""
    return Resource.create(
        {
            "service.name": service_name,
            "service.version": version,
            "service.instance.id": f"{socket.gethostname()}:{instance}",
        }
    )


def metrics_data(
    families: list[FamilyValues], resource: Resource, started_ns: int, now_ns: int
) -> MetricsData:
    """OTLP's form of a registry: cumulative, seconds as floats, every shown name on its own."""
    metrics = [
        Metric(name, values.family.help, values.family.unit, _points(values, started_ns, now_ns))
        for values in families
        for name in values.family.names
        if values.rows
    ]
    scope = ScopeMetrics(_SCOPE, metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _points(values: FamilyValues, started_ns: int, now_ns: int) -> Sum | Gauge | HistogramData:
    cumulative = AggregationTemporality.CUMULATIVE
    if values.family.kind == HISTOGRAM:
        points = [_histogram_point(values, row, started_ns, now_ns) for row in values.rows]
        return HistogramData(points, cumulative)
    numbers = [
        NumberDataPoint(
            _attributes(values.family.labels, labels),
            started_ns,
            now_ns,
            _scaled(cells[0], values.family.divisor),
        )
        for labels, cells in values.rows
    ]
    if values.family.kind == COUNTER:
        return Sum(numbers, cumulative, is_monotonic=True)
    return Gauge(numbers)


def _histogram_point(
    values: FamilyValues, row: tuple[Labels, list[int]], started_ns: int, now_ns: int
) -> HistogramDataPoint:
    labels, cells = row
    family, copied = values.family, list(cells)
    return HistogramDataPoint(
        attributes=_attributes(family.labels, labels),
        start_time_unix_nano=started_ns,
        time_unix_nano=now_ns,
        count=sum(copied[1:]),
        sum=copied[0] / family.divisor,
        bucket_counts=copied[1:],
        explicit_bounds=[bound / family.divisor for bound in family.bounds],
        min=None,  # type: ignore[arg-type] # not kept; the encoder leaves out what is None
        max=None,  # type: ignore[arg-type]
    )


def _attributes(keys: Labels, labels: Labels) -> dict[str, str | int]:
    return {
        key: int(value) if key in names.INTEGER_ATTRIBUTES and value.isdecimal() else value
        for key, value in zip(keys, labels, strict=True)
        if value
    }


def _scaled(value: int, divisor: int) -> int | float:
    return value if divisor == 1 else value / divisor
