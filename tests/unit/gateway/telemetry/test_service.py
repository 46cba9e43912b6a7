"""gateway.telemetry.service: the parts together, with a real collector and real files."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.telemetry.record import TraceIds
from gateway.telemetry.service import Telemetry, TelemetrySettings
from tests.running import run
from tests.unit.gateway.telemetry.collector import collector
from tests.unit.gateway.telemetry.records import IDS, answered, refused, streamed


def telemetry(home: Path, **fields: Any) -> Telemetry:
    given: dict[str, Any] = {"run_dir": home, "process": "data-0", "service_version": "0.1.0"}
    return Telemetry(TelemetrySettings(**(given | fields)))


def figures(text: bytes) -> dict[str, str]:
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    return {name: value for name, _, value in (line.rpartition(" ") for line in lines)}


def test_a_finished_request_is_seen_by_another_process(tmp_path: Path) -> None:
    data, admin = telemetry(tmp_path), telemetry(tmp_path, process="admin")
    data.start()
    admin.start()
    data.finish(streamed())
    data.close()

    shown = figures(admin.exposition())

    admin.close()
    route = 'http_request_method="POST",url_scheme="http",http_route="/v1/chat/completions"'
    name = "http_server_request_duration_seconds_count"
    assert shown[name + "{" + route + ',http_response_status_code="200"}'] == "1"
    assert shown['meterhouse_build_info{meterhouse_version="0.1.0"}'] == "1"


def test_the_collector_gets_spans_of_sampled_requests_and_all_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsampled = msgspec.structs.replace(IDS, sampled=False)
    with collector() as there:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", there.url)
        house = telemetry(tmp_path, export=True)
        house.start()
        house.finish(streamed())
        house.finish(answered(trace=unsampled))
        house.close()

        assert sorted(span.name for span in there.spans()) == [
            "POST",
            "POST /v1/chat/completions",
            "admission",
            "chat smollm2",
        ]
        duration = there.metrics()["gen_ai.client.inference.duration"]
    assert sum(point.count for point in duration.histogram.data_points) == 2


def test_a_collector_that_is_away_is_not_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}"
        )
        house = telemetry(tmp_path, export=True)
        house.start()
        house.finish(streamed())
        before = time.monotonic()
        house.close()

    assert time.monotonic() - before < 8


def traces_lost(home: Path, collector_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the last figures say of seven sampled requests."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector_url)
    house = telemetry(home, export=True)
    house.start()
    for _ in range(7):
        house.finish(streamed())
    house.close()
    shown = figures(house.exposition())
    return shown['meterhouse_telemetry_dropped_total{meterhouse_kind="trace"}']


def test_what_is_lost_while_closing_is_in_the_last_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collector() as there:
        there.answer = 413
        assert traces_lost(tmp_path, there.url, monkeypatch) == "7"


def test_what_a_collector_that_never_answers_was_sent_is_in_the_last_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert traces_lost(tmp_path, url, monkeypatch) == "7"


def test_a_broken_record_costs_a_count_and_no_request(tmp_path: Path) -> None:
    house = telemetry(tmp_path)
    house.start()

    house.finish(answered(meters=None))
    house.close()

    lost = 'meterhouse_telemetry_dropped_total{meterhouse_kind="record"}'
    assert figures(house.exposition())[lost] == "1"


def test_gauges_and_counters_of_others_are_shown(tmp_path: Path) -> None:
    house = telemetry(tmp_path)
    house.gauge("http.server.active_requests", "In flight.", lambda: 3)
    house.gauge("breaker", "1 open.", lambda: {("be_1",): 1}, "backend", greatest=True)
    drained = house.counter("journal.drained", "Drained.", "tag").child("s00")
    house.start()
    drained.inc(9)
    admin = telemetry(tmp_path, process="admin")
    house._write_snapshot()

    shown = figures(admin.exposition())

    house.close()
    assert shown["http_server_active_requests"] == "3"
    assert shown['breaker{backend="be_1"}'] == "1"
    assert shown['journal_drained_total{tag="s00"}'] == "9"


def test_closing_twice_or_without_a_start_does_no_harm(tmp_path: Path) -> None:
    never_started, house = telemetry(tmp_path), telemetry(tmp_path)
    house.start()

    for each in (never_started, house, house):
        each.close()


def test_a_late_event_loop_is_measured(tmp_path: Path) -> None:
    house = telemetry(tmp_path)

    def block() -> None:
        time.sleep(0.3)

    async def block_once() -> None:
        watching = asyncio.create_task(house.watch_loop())
        await asyncio.sleep(0)
        block()
        await asyncio.sleep(0.01)
        watching.cancel()

    house.start()
    run(block_once())
    house.close()

    assert float(figures(house.exposition())["meterhouse_event_loop_lag_seconds_sum"]) > 0.02


def test_every_trace_id_fits_the_wire(tmp_path: Path) -> None:
    ids = telemetry(tmp_path).trace_ids(None)

    assert isinstance(ids, TraceIds)
    assert len(ids.traceparent(0)) == 55


def test_records_have_no_room_for_content(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    house = telemetry(tmp_path, access_log=str(log))
    house.start()
    house.finish(refused())
    house.close()

    line = json.loads(log.read_bytes())
    assert not {"messages", "prompt", "content", "body", "headers", "url", "query"} & set(line)


def test_no_counter_goes_back_while_workers_are_killed_and_restarted(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from gateway.telemetry.service import Telemetry, TelemetrySettings
house = Telemetry(TelemetrySettings(run_dir=Path(sys.argv[1]), process="data-0"))
work = house.counter("work", "Work.").child()
house.start()
while sys.stdin.readline():
    work.inc()
    house._write_snapshot()
    print("done", flush=True)
"""
    admin = telemetry(tmp_path, process="admin")
    seen = [0]
    for _ in range(3):
        arguments = [sys.executable, "-c", code, str(tmp_path)]
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
            assert worker.stdin is not None
            assert worker.stdout is not None
            for _ in range(3):
                worker.stdin.write(b"more\n")
                worker.stdin.flush()
                worker.stdout.readline()
                seen.append(int(figures(admin.exposition())["work_total"]))
            worker.kill()
        seen.append(int(figures(admin.exposition())["work_total"]))

    assert seen == sorted(seen)
    assert seen[-1] == 9
