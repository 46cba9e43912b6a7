"""gateway.telemetry.accesslog"""

import json
import threading
from pathlib import Path

import msgspec
import pytest

from gateway.telemetry import accesslog
from gateway.telemetry.accesslog import AccessLog
from tests.unit.gateway.telemetry.records import answered, attempt, refused


def test_one_line_a_request_says_what_happened(tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "log" / "access.jsonl"))

    log.add(answered(attempts=(attempt(status=503), attempt(upstream_request_id="up-1"))))
    log.add(refused())
    log.close()

    first, second = map(json.loads, (tmp_path / "log" / "access.jsonl").read_text().splitlines())
    assert first["time"] == "2025-11-21T22:00:00.000000Z"
    assert first["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (first["duration_us"], first["overhead_us"]) == (902_000, 2_000)
    assert (first["input_tokens"], first["cache_read_tokens"], first["output_tokens"]) == (
        *(100, 70),
        41,
    )
    assert (first["charge_picos"], first["currency"]) == ("2500000000", "USD")
    assert (first["attempts"], first["upstream_request_id"]) == (2, "up-1")
    assert (second["status"], second["code"]) == (429, "insufficient_quota")
    assert "input_tokens" not in second


def test_lines_beyond_the_bound_are_dropped_and_counted(tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "access.jsonl"))

    for _ in range(accesslog.WAITING_LINES + 3):
        log.add(refused())

    assert log.dropped == 3
    log.close()
    assert len((tmp_path / "access.jsonl").read_bytes().splitlines()) == accesslog.WAITING_LINES


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    log = AccessLog(str(full))

    log.add(refused())
    log.flush()

    assert log.dropped == 1


def test_no_destination_is_no_log() -> None:
    log = AccessLog("")

    log.add(refused())
    log.close()

    assert log.dropped == 0


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    log = AccessLog(str(path))
    log.add(refused())
    log.flush()

    path.rename(tmp_path / "kept.jsonl")
    log.add(refused())
    log.close()

    assert len(path.read_bytes().splitlines()) == 1


def test_a_log_whose_folder_is_gone_costs_lines_and_touches_no_other_file(tmp_path: Path) -> None:
    folder, path = tmp_path / "log", tmp_path / "log" / "access.jsonl"
    log = AccessLog(str(path))
    folder.rename(tmp_path / "elsewhere")
    log.add(refused())
    log.flush()
    with (tmp_path / "another").open("w+b") as other:  # gets the lowest number that is free
        for _ in range(2):
            log.add(refused())
            log.flush()
        other.write(b"its own")
        other.seek(0)
        assert other.read() == b"its own"
    assert log.dropped == 3

    folder.mkdir()
    log.add(refused())
    log.close()

    assert len(path.read_bytes().splitlines()) == 1


def test_a_rotation_that_fails_keeps_nobody_waiting(tmp_path: Path) -> None:
    path, in_the_way = tmp_path / "access.jsonl", tmp_path / "access.jsonl.1"
    one, two = AccessLog(str(path)), AccessLog(str(path))
    with path.open("r+b") as file:
        file.truncate(accesslog.ROTATE_BYTES)
    in_the_way.mkdir()

    for log in (one, two):
        log.add(refused())
        closing = threading.Thread(target=log.flush, daemon=True)
        closing.start()
        closing.join(30)
        assert not closing.is_alive()

    assert (one.dropped, two.dropped) == (1, 1)
    in_the_way.rmdir()
    two.add(refused())
    two.close()
    one.close()
    assert len(path.read_bytes().splitlines()) == 1


def test_half_a_line_that_a_full_disk_took_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    path.write_bytes(b'{"time":"2026-')
    log = AccessLog(str(path))

    log.add(refused())
    log.close()

    half, whole = path.read_bytes().splitlines()
    assert half == b'{"time":"2026-'
    assert msgspec.json.decode(whole)["status"] == refused().status


def test_two_processes_rotate_one_file_once(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    one, two = AccessLog(str(path)), AccessLog(str(path))
    with path.open("wb") as file:
        file.truncate(accesslog.ROTATE_BYTES)

    for log in (one, two):
        log.add(refused())
        log.close()

    assert (tmp_path / "access.jsonl.1").stat().st_size == accesslog.ROTATE_BYTES
    assert len(path.read_bytes().splitlines()) == 2
