"""`meterhouse jobs` as a process: it books what comes, and on SIGTERM what is left, then ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine, func, select

from billing.usage import ENCODER
from gateway.stores.redis import keys
from gateway.stores.sql import models
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.rows import Model, Target
from gateway.stores.sql.tables import usage_rows
from tests.ledger_events import a_ledger, an_event

TAG = "s00"


@pytest.fixture
def started(
    sqlite_url: str, store_url: str, tmp_path: Path
) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts the process; whatever is still running at the end is killed."""
    processes = []
    environ = {name: text for name, text in os.environ.items() if "METERHOUSE" not in name} | {
        "METERHOUSE_HOME": str(tmp_path / "home"),
        "METERHOUSE_REDIS_URL": store_url,
        "METERHOUSE_DATABASE_URL": sqlite_url,
    }

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gateway", "jobs"]
        processes.append(subprocess.Popen(command, env=environ, stderr=subprocess.PIPE))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


def test_what_is_settled_while_it_runs_and_as_it_stops_is_booked(
    started: Callable[[], subprocess.Popen[bytes]], sqlite_url: str, store_url: str
) -> None:
    with a_ledger(sqlite_url) as engine, redis.Redis.from_url(store_url) as store:
        process = started()
        _journal(store, range(10))
        _until(lambda: _rows(engine) == 10, process)

        _journal(store, range(10, 2_500))
        process.send_signal(signal.SIGTERM)

        said = process.communicate(timeout=60)[1].decode()
        assert process.returncode == 0, said
        assert _rows(engine) == 2_500
        assert store.xlen(keys.journal(TAG)) == 0


def test_a_route_that_nobody_priced_is_told_as_it_starts(
    started: Callable[[], subprocess.Popen[bytes]], sqlite_url: str
) -> None:
    with a_ledger(sqlite_url) as engine:
        with transaction(engine) as connection:
            target = Target(backend_id="backend_eu", upstream_model="smol")
            models.RECORDS.add(connection, Model(id="model_1", name="dear", targets=(target,)))
        process = started()
        assert process.stderr is not None

        said = next(line for line in process.stderr if b"model dear" in line).decode()

        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert "no input price in USD at backend eu (smol): 2 tenants cannot use it there" in said
        assert "POST /admin/v1/prices/import" in said


def test_one_that_is_killed_is_carried_on_by_the_next(
    started: Callable[[], subprocess.Popen[bytes]], sqlite_url: str, store_url: str
) -> None:
    with a_ledger(sqlite_url) as engine, redis.Redis.from_url(store_url) as store:
        _journal(store, range(20_000))
        first = started()
        _until(lambda: _rows(engine) > 0, first)
        first.kill()
        first.wait()
        store.delete(keys.lease(keys.drain(TAG)))  # as when it has run out

        second = started()
        _until(lambda: store.xlen(keys.journal(TAG)) == 0, second)

        assert _rows(engine) == 20_000


def _journal(store: redis.Redis, numbers: range) -> None:
    with store.pipeline(transaction=False) as pipe:
        for n in numbers:
            pipe.xadd(keys.journal(TAG), {"e": ENCODER.encode(an_event(f"req_{n}")), "h": 1})
        pipe.execute()


def _rows(engine: Engine) -> int:
    with reading(engine) as connection:
        return connection.scalar(select(func.count()).select_from(usage_rows)) or 0


def _until(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
