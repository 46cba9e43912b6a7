"""What single steps of a request cost in this process, best of several runs, in microseconds.

Figures are also given in units of a fixed loop, which makes them comparable between machines.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from opentelemetry.sdk.resources import Resource

from gateway.telemetry.otlp import Envelope
from gateway.telemetry.service import Telemetry, TelemetrySettings
from gateway.telemetry.spans import spans_of
from tests.unit.gateway.telemetry.records import streamed

_TIMES = 5_000
_ROUNDS = 7


def rows() -> list[tuple[str, float]]:
    with tempfile.TemporaryDirectory(prefix="mh-stages-") as folder:
        home = Path(folder)
        house = Telemetry(
            TelemetrySettings(run_dir=home, process="data-0", access_log=str(home / "access.jsonl"))
        )
        record = streamed()
        traceparent = record.trace.traceparent(0)
        envelope = Envelope(Resource({}))

        def finish() -> None:
            for _ in range(_TIMES):
                house.finish(record)
            house._log._lines.clear()

        return [
            ("trace ids", _best(lambda: _repeat(lambda: house.trace_ids(None)))),
            (
                "trace ids, caller's trace",
                _best(lambda: _repeat(lambda: house.trace_ids(traceparent))),
            ),
            ("finish: metrics and access log", _best(finish)),
            (
                "spans of a sampled request, encoded",
                _best(
                    lambda: _repeat(
                        lambda: envelope.body([(record.trace.trace_id, spans_of(record))])
                    )
                ),
            ),
        ]


def calibration() -> float:
    """Microseconds of a fixed piece of Python."""

    def piece() -> None:
        total: dict[int, int] = {}
        for number in range(100):
            total[number & 15] = total.get(number & 15, 0) + number

    return _best(lambda: _repeat(piece))


def text() -> str:
    unit = calibration()
    lines = [f"  {name:32} {cost:7.2f} us  {cost / unit:5.2f} units" for name, cost in rows()]
    return f"stages (one unit is {unit:.2f} us here)\n" + "\n".join(lines) + "\n"


def _repeat(step: Callable[[], object]) -> None:
    for _ in range(_TIMES):
        step()


def _best(run: Callable[[], object]) -> float:
    """Microseconds of one step: the fastest round, which noise touched least."""
    fastest = float("inf")
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        run()
        fastest = min(fastest, time.perf_counter() - began)
    return fastest / _TIMES * 1e6
