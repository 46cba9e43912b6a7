"""The one object a process reports to: metrics, sampled spans and the access log of a request."""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

import msgspec

from gateway import clock
from gateway.telemetry import names, prometheus, snapshots
from gateway.telemetry.accesslog import AccessLog
from gateway.telemetry.booking import Booking
from gateway.telemetry.metrics import (
    COUNTER,
    GAUGE_MAX,
    GAUGE_SUM,
    HISTOGRAM,
    Counter,
    Distribution,
    Family,
    Reading,
    Registry,
)
from gateway.telemetry.record import RequestRecord, TraceIds
from gateway.telemetry.sampling import Sampler

if TYPE_CHECKING:
    from gateway.telemetry.export import ExportThread, MetricExport, TraceExport

_FLUSH_SECONDS: Final = 0.25
_FLUSHES_A_SNAPSHOT: Final = 4
_LAST_EXPORT_SECONDS: Final = 3.0
_LAG_PROBE_SECONDS: Final = 0.25


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What telemetry needs to know of the process it runs in."""

    run_dir: Path  # shared by all processes of a home
    process: str  # data-0, data-1, admin, jobs
    sampling_ratio: float = 0.1  # sampling.ratio_of(OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG)
    export: bool = False  # OTEL_EXPORTER_OTLP_ENDPOINT is set; the exporters read OTEL_* themselves
    export_metrics_every_s: float = 60.0
    convention: names.Convention = names.Convention.BOTH
    access_log: str = ""  # "" off, "-" standard output, else a path
    service_name: str = "meterhouse"
    service_version: str = ""


class Telemetry:
    """`start()` before the first request, `close()` after the last one."""

    def __init__(self, settings: TelemetrySettings) -> None:
        self._settings = settings
        self._instance = f"{settings.process}-{os.getpid()}-{clock.now_us()}"
        self._registry = Registry()
        self._sampler = Sampler(settings.sampling_ratio, Random(os.urandom(32)))  # noqa: S311 - ids, not secrets
        self._booking = Booking(self._registry, settings.convention, self._lose)
        self._log = AccessLog(settings.access_log)
        self._traces: TraceExport | None = None
        self._metrics: MetricExport | None = None
        self._export: ExportThread | None = None
        self._snapshot: snapshots.SnapshotFile | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._declare_own()

    def trace_ids(self, traceparent: bytes | None) -> TraceIds:
        """Ids and the sampling decision of one request. A bad header is as good as none."""
        return self._sampler.ids(traceparent)

    def finish(self, record: RequestRecord) -> None:
        """Metrics, access log line and, when sampled, spans. Never raises and never waits: a
        request that went well must not fail over its own description.
        """
        try:
            self._booking.book(record)
            self._log.add(record)
            if record.trace.sampled and self._traces is not None:
                self._traces.add(record)
        except Exception:  # noqa: BLE001 - see the docstring; counted, so that it is noticed
            self._lose(1)

    def _lose(self, records: int) -> None:
        self._lost_records.inc(records)

    def counter(self, name: str, help_: str, *labels: str, unit: str = "") -> Counter:
        """A counter of the caller's own. `name` comes from `names`; label values must be few."""
        return self._registry.counter(
            Family(names=(name,), kind=COUNTER, help=help_, unit=unit, labels=labels)
        )

    def seconds(self, name: str, help_: str, bounds_us: tuple[int, ...]) -> Distribution:
        """A distribution of durations, observed in microseconds and shown in seconds."""
        family = Family(
            names=(name,), kind=HISTOGRAM, help=help_, unit="s", bounds=bounds_us, divisor=1_000_000
        )
        return self._registry.histogram(family).child()

    def gauge(
        self,
        name: str,
        help_: str,
        read: Callable[[], Reading],
        *labels: str,
        unit: str = "",
        greatest: bool = False,
    ) -> None:
        """Shows what `read` answers: a whole number, or one for each tuple of label values.

        Called about once a second on another thread, so it must only read. Figures of several
        processes are added up, or with `greatest` the greatest one counts.
        """
        kind = GAUGE_MAX if greatest else GAUGE_SUM
        family = Family(names=(name,), kind=kind, help=help_, unit=unit, labels=labels)
        self._registry.gauge(family, read)

    async def watch_loop(self) -> None:
        """Measures how late the event loop is, until cancelled."""
        while True:
            before_us = clock.monotonic_us()
            await asyncio.sleep(_LAG_PROBE_SECONDS)
            late_us = clock.monotonic_us() - before_us - int(_LAG_PROBE_SECONDS * 1_000_000)
            self._lag.observe(max(late_us, 0))

    def start(self) -> None:
        """Begins to write snapshots, the access log and exports, all off the calling thread."""
        self._snapshot = snapshots.SnapshotFile(self._directory, self._instance)
        self._write_snapshot()
        if self._settings.export:
            self._start_export()
        self._thread.start()

    def close(self) -> None:
        """Writes and sends what is left; a collector that is away costs 3 s. Twice does no harm."""
        if self._over.is_set():
            return
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._export is not None:
            self._export.close(_LAST_EXPORT_SECONDS)
        self._log.close()
        if self._snapshot is not None:
            self._count_lost()
            self._write_snapshot()
            self._snapshot.close()

    def exposition(self) -> bytes:
        """Prometheus text over all processes of this home, at most a second old; reads files."""
        return prometheus.render(snapshots.collect(self._directory))

    @property
    def _directory(self) -> Path:
        return self._settings.run_dir / "metrics"

    def _declare_own(self) -> None:
        self._lag = self.seconds(names.LOOP_LAG, "How late the event loop was.", names.SMALL_US)
        dropped = self.counter(
            names.TELEMETRY_DROPPED, "Telemetry that was lost.", names.KIND, unit="{record}"
        )
        self._lost_records = dropped.child("record")
        self._lost_lines = dropped.child("access_log")
        self._lost_traces = dropped.child("trace")
        self._seen_lost = [0, 0]
        process, version = self._settings.process, self._settings.service_version
        self.gauge(
            names.PROCESS_MEMORY,
            "Resident memory.",
            lambda: {(process,): _resident_bytes()},
            names.PROCESS,
            unit="By",
        )
        self.gauge(names.BUILD, "Always 1.", lambda: {(version,): 1}, names.VERSION, greatest=True)

    def _start_export(self) -> None:
        # Loaded here because it brings in protobuf and an HTTP client, 200 ms nobody else needs.
        from gateway.telemetry import export  # noqa: PLC0415 - heavy, and needed only where an exporter is set

        settings = self._settings
        self._traces, self._metrics = export.otlp(
            self._instance, settings.service_name, settings.service_version, self._registry
        )
        self._export = export.ExportThread(
            self._traces, self._metrics, settings.export_metrics_every_s
        )
        self._export.start()

    def _run(self) -> None:
        turn = 0
        while not self._over.wait(_FLUSH_SECONDS):
            turn += 1
            self._log.flush()
            if turn % _FLUSHES_A_SNAPSHOT == 0:
                self._count_lost()
                self._write_snapshot()

    def _count_lost(self) -> None:
        lines, traces = self._log.dropped, self._traces.dropped if self._traces else 0
        self._lost_lines.inc(lines - self._seen_lost[0])
        self._lost_traces.inc(traces - self._seen_lost[1])
        self._seen_lost = [lines, traces]

    def _write_snapshot(self) -> None:
        """A full disk leaves the last figures standing; counting goes on."""
        if self._snapshot is not None:
            with suppress(OSError):
                self._snapshot.write(self._registry.values())


def _resident_bytes() -> int:
    """0 where the system has no /proc."""
    try:
        with Path("/proc/self/statm").open("rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
