"""Rollups of a large ledger, derived anew from its usage rows: how long it takes, and that memory
does not grow with the ledger.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from gateway.stores.sql import books, rate_cards, rebuilding, rollups
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.tables import usage_rows
from tests.ledger_events import CHARGE, COST, a_ledger

Figure = Callable[[str], None]
OCTOBER_US = 1_790_812_800_000_000  # 2026-10-01T00:00:00Z
MONTH_US = 30 * 86_400_000_000

# Twenty tenants of five keys and two models, all of a month, one attempt in fifty lost; admitted
# nearly in the order in which they are booked.
WON = "i % 50 <> 7"
AT = f"{OCTOBER_US} + i * :step + i * 7919 % 600 * 1000000"
ROW = {
    "event_id": "'req_' || (1000000000 + i) || '\\:1'",
    "request_id": "'req_' || (1000000000 + i)",
    "attempt": "1",
    "winner": WON,
    "tenant_id": "'tenant_' || (i % 20)",
    "team_id": "'team_' || (i / 20 % 5)",
    "team_path": "'team_top/team_' || (i / 20 % 5)",
    "key_id": "'key_' || (i % 20) || '_' || (i / 20 % 5)",
    "model": "'chat-' || (i / 7 % 2)",
    **{name: f"'{name}'" for name in ("backend_id", "upstream_model", "region", "operation")},
    "stream": "i % 2 = 0",
    "admitted_at_us": AT,
    "finished_at_us": f"{AT} + 900000",
    "recorded_at_us": f"{OCTOBER_US} + i * :step + 602000000",
    "ttft_us": "120000",
    "duration_us": "900000",
    "status": "200",
    "hold": "'settled'",
    "input_tokens": "i % 977 + 1",
    "cache_read_tokens": "i % 101",
    "output_tokens": "i % 53",
    **dict.fromkeys(("cache_write_5m_tokens", "cache_write_1h_tokens", "reasoning_tokens"), "0"),
    "provenance": "'reported'",
    "currency": "'USD'",
    "counter_nanos": "0",
    "tags": "'{}'",
    "charge_card": ":charge",
    "cost_card": ":cost",
    "end_by": "'upstream'",
    "charge_picos": f"CASE WHEN {WON} THEN (i % 977 + 1) * 3000000 + i % 101 * 300000"
    " + i % 53 * 15000000 ELSE 0 END",
    "cost_picos": "(i % 977 + 1) * 2500000 + i % 101 * 250000 + i % 53 * 12345679",
    "end_phase": "'done'",
}
# What the rollups of 2,000 rows say, in whatever parts and on whichever database they are made.
OF_2_000 = "bbb5b14ce2834e29efea012a9be4ef5d8adb05748d694e1bfb5c0d9b5a23903f"
SERIES = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :count)"
    " SELECT {row} FROM n",
    "postgresql": "SELECT {row} FROM generate_series(0, CAST(:count AS bigint) - 1) AS n(i)",
}


@contextlib.contextmanager
def with_rows(url: str, count: int) -> Iterator[Engine]:
    """Rows as they are booked, without what is booked beside them."""
    with a_ledger(url) as engine:
        with transaction(engine) as connection:
            rate_cards.put(connection, [CHARGE, COST])
            for index in usage_rows.indexes:  # built once all is there, in a fraction of the time
                index.drop(connection)
            chosen = SERIES[engine.dialect.name].format(row=", ".join(ROW.values()))
            connection.execute(
                text(f"INSERT INTO usage_rows ({', '.join(ROW)}) {chosen}"),
                {"count": count, "step": MONTH_US // count}
                | {"charge": CHARGE.id, "cost": COST.id},
            )
            for index in usage_rows.indexes:
                index.create(connection)
            if engine.dialect.name == "postgresql":
                connection.execute(text("ANALYZE usage_rows"))
        yield engine


def test_a_small_ledger_is_rolled_up_as_a_large_one_is(database_url: str) -> None:
    with with_rows(database_url, 2_000) as engine:
        list(rebuilding.rebuild(engine, longest_us=MONTH_US // 7))
        in_parts = digest(engine)
        list(rebuilding.rebuild(engine))

        assert digest(engine) == in_parts == OF_2_000
        with reading(engine) as connection:
            faults = books.check(connection).faults
    assert not [fault for fault in faults if "rollup" in fault]


@pytest.mark.long
def test_ten_million_rows_are_rolled_up_in_constant_memory(
    database_url: str, figure: Figure
) -> None:
    count = 10_000_000
    with with_rows(database_url, count) as engine, watched(engine) as seen:
        began, used = time.monotonic(), processor_s(engine)
        made = sum(each.rollups for each in rebuilding.rebuild(engine))
        seconds, spent = time.monotonic() - began, processor_s(engine) - used

    figure(
        f"{count:,} rows into {made:,} rollups: {seconds:.1f} s, {count / seconds:,.0f} rows/s, "
        f"{spent:.1f} s of one processor; {max(seen) >> 10} MiB more at most; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    )
    assert max(seen) < 96 * 1024, "KiB"


def digest(engine: Engine) -> str:
    with reading(engine) as connection:
        return rollups.digest(connection)


@contextlib.contextmanager
def watched(engine: Engine) -> Iterator[list[int]]:
    """How much more memory this process and those of the database have to themselves, in KiB; one
    figure every now and then.
    """
    seen, over = [0], threading.Event()
    before = private_kib(engine)

    def watch() -> None:
        while not over.wait(0.2):
            seen.append(private_kib(engine) - before)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        over.set()
        watching.join()


def processes(engine: Engine) -> list[int]:
    if engine.dialect.name != "postgresql":
        return [os.getpid()]
    with reading(engine) as connection:
        return [os.getpid(), *connection.scalars(text("SELECT pid FROM pg_stat_activity"))]


def private_kib(engine: Engine) -> int:
    found = 0
    for pid in processes(engine):
        with contextlib.suppress(FileNotFoundError):  # it ended meanwhile
            status = Path(f"/proc/{pid}/status").read_text()
            found += int(status.partition("RssAnon:")[2].split()[0])
    return found


def processor_s(engine: Engine) -> float:
    ticks = 0
    for pid in processes(engine):
        with contextlib.suppress(FileNotFoundError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
