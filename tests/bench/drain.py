"""`python -m tests.bench.drain`: how fast the jobs bring a full journal to the ledger, and what it
costs.

`meterhouse jobs` as it is started by `up`, every job at work, with the store and the database on
cores other than that of a data plane; the database forces its writes to the disk. CPU is what a
busy machine changes least.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import redis

from gateway.stores.redis import keys
from gateway.stores.redis.keys import DEFAULT_TAG
from tests import servers
from tests.bench import entries, machine
from tests.bench.goals import Goal, told
from tests.ledger_events import a_ledger

_GOALS: Final = {"sqlite": 15_000, "postgres": 10_000}  # rows a second
_GIVEN_UP_S: Final = 300.0
_FILLED_WITHIN_MS: Final = 300_000
_WARM: Final = 3_000  # rows first, so that everything there is has been loaded


class Drained(msgspec.Struct, frozen=True):
    """CPU in microseconds a row: of the jobs, the store and the database's own processes."""

    seconds: float
    rows: int
    jobs_us: float
    store_us: float
    database_us: float
    resident_mib: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.drain", description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--database", choices=[*_GOALS, "both"], default="both")
    arguments = parser.parse_args()
    chosen = list(_GOALS) if arguments.database == "both" else [arguments.database]
    return max([_shown(name, arguments.rows) for name in chosen])


def _shown(name: str, rows: int) -> int:
    drained = measure(name, rows)
    rate, goal = drained.rows / drained.seconds, _GOALS[name]
    print(f"{name}: {drained.rows} rows in {drained.seconds:.1f} s")
    print(
        f"  CPU us a row: jobs {drained.jobs_us:.1f}, store {drained.store_us:.1f},"
        f" database {drained.database_us:.1f}; the jobs' process weighs"
        f" {drained.resident_mib:.0f} MiB"
    )
    cpu_us = drained.jobs_us + drained.database_us
    return told(
        [
            Goal(f"rows a second into {name}", f"{rate:,.0f}", f">= {goal:,}", rate >= goal),
            Goal(
                "the same by CPU of jobs and database",
                f"{1e6 / cpu_us:,.0f}",
                f">= {goal:,}",
                1e6 / cpu_us >= goal,
            ),
        ]
    )


def measure(name: str, rows: int) -> Drained:
    with (
        tempfile.TemporaryDirectory(prefix="mh-drain-") as folder,
        servers.store_server(servers.valkey_binary(), appendonly="yes") as store,
        _database(name, Path(folder)) as (url, server),
        a_ledger(url),
        redis.Redis.from_url(store.url) as client,
        _jobs(folder, store.url, url) as jobs,
    ):
        for pid in (jobs, store.pid, *server):
            machine.pin(machine.family(pid), machine.cores()[1])
            machine.prefer(machine.family(pid))
        _emptied(client, store.url, _WARM)
        before = [_cpu_s(pids) for pids in ([jobs], [store.pid], server)]
        seconds = _emptied(client, store.url, rows)
        spent = [
            (_cpu_s(pids) - cpu_s) * 1e6 / rows
            for pids, cpu_s in zip(([jobs], [store.pid], server), before, strict=True)
        ]
        return Drained(seconds, rows, *spent, machine.resident_mib([jobs]) or 0.0)


def _emptied(client: "redis.Redis", store_url: str, rows: int) -> float:
    """Seconds from the moment at which the journal may be read until nothing is left in it."""
    still = keys.lease(keys.still(DEFAULT_TAG))
    client.set(still, "the bench", px=_FILLED_WITHIN_MS)
    time.sleep(1)  # a turn that has begun looks before it reads on
    entries.fill(store_url, DEFAULT_TAG, rows)
    client.delete(still)
    began = time.monotonic()
    while client.xlen(keys.journal(DEFAULT_TAG)):
        time.sleep(0.02)
        if time.monotonic() - began > _GIVEN_UP_S:
            raise RuntimeError("the journal does not become empty")
    return time.monotonic() - began


def _cpu_s(pids: list[int]) -> float:
    return machine.cpu_seconds(each for pid in pids for each in machine.family(pid)) or 0.0


@contextmanager
def _database(name: str, folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Its URL, and the process that answers for it, where it has any."""
    if name == "sqlite":
        yield f"sqlite:///{folder / 'ledger.db'}", []
        return
    with servers.own_postgres(fsync="on", shared_buffers="128MB") as server:
        yield server.url, [server.pid]


@contextmanager
def _jobs(folder: str, store_url: str, database_url: str) -> Iterator[int]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("METERHOUSE_", "OTEL"))}
    environ |= {
        "METERHOUSE_HOME": folder,
        "METERHOUSE_REDIS_URL": store_url,
        "METERHOUSE_DATABASE_URL": database_url.replace("+psycopg", ""),
    }
    with subprocess.Popen([sys.executable, "-m", "gateway", "jobs"], env=environ) as process:
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    sys.exit(main())
