"""The one object the process reports to: metrics, sampled spans and the access log of a request."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from gateway.telemetry.record import RequestRecord, TraceIds

type_gauge = Callable[[], "int | float | Mapping[tuple[str, ...], int | float]"]


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What telemetry needs to know of the process it runs in."""

    home: Path
    process: str  # data-0, data-1, admin, jobs: unique among the live processes of one home
    sampling_ratio: float = (
        0.1  # see tracing.ratio_of(OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG)
    )
    otlp_endpoint: str = ""  # OTEL_EXPORTER_OTLP_ENDPOINT; empty = nothing is sent
    convention: str = "both"  # GenAI metric names: released | latest | both
    access_log: str = "-"  # "-" standard output, "" off, else a file (rotated at 64 MiB)
    service_name: str = "meterhouse"  # OTEL_SERVICE_NAME
    service_version: str = ""


class Telemetry:
    """`start()` before the first request, `close()` after the last; `finish` never raises or waits."""

    def __init__(self, settings: TelemetrySettings) -> None: ...

    def trace_ids(self, traceparent: bytes | None) -> TraceIds:
        """Ids and the sampling decision of one request (about 1 us). A bad header is ignored."""
        raise RuntimeError

    def finish(self, record: RequestRecord) -> None:
        """Metrics, access log line and, when sampled, spans of one finished request."""

    def gauge(self, name: str, read: type_gauge, labels: Sequence[str] = ()) -> None:
        """Reports what `read` answers: a number, or one number a tuple of label values.

        Called about once a second from another thread, so it must only read.
        """

    def count(self, name: str, *label_values: str, by: int = 1) -> None:
        """Adds to one of the counters declared in instruments.py."""

    def start(self) -> None:
        """Begins to write snapshots, the access log and exports, off the calling thread."""

    def close(self) -> None:
        """Writes and sends what is left, within a few seconds. May be called twice."""

    def exposition(self) -> bytes:
        """Prometheus text over all processes of this home, living and dead."""
        return b""
