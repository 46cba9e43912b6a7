"""A month of a large tenant: every level comes to the same last pico, and what is exported needs no
more memory for a million lines than for a few.
"""

import os
import resource
import time
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, select, true

from billing import focus
from billing.csv_files import csv_text
from billing.focus import Bill
from billing.invoices import InvoiceLine, csv_rows
from billing.meters import Meters
from billing.money import format_picos, minor_picos
from billing.periods import month
from billing.usage import UsageEvent
from gateway import clock
from gateway.stores.sql import (
    books,
    compaction,
    drafts,
    invoices,
    issuing,
    rebuilding,
    rollups,
    usage,
)
from gateway.stores.sql.bulk import append
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.exact import exact_sum, whole
from gateway.stores.sql.invoice_tables import invoice_lines
from gateway.stores.sql.invoices import Invoice
from gateway.stores.sql.rollups import rolled
from gateway.stores.sql.tables import postings, usage_rows
from tests.invoicing import drafted, october
from tests.ledger_events import a_ledger

T = TypeVar("T")
Figure = Callable[[str], None]
OCTOBER: Final = month("2026-10", ZoneInfo("Europe/Berlin"))
_BATCH: Final = 5_000


def test_a_long_export_takes_no_more_memory_than_a_short_one(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        short, long = with_lines(engine, "2026-09", 1_500), with_lines(engine, "2026-08", 8_000)

        peaks = [exported(engine, each) for each in (short, long)]

    assert peaks[1] < peaks[0] + 500_000, peaks


@pytest.mark.long
def test_a_million_lines_are_exported_in_constant_memory(database_url: str, figure: Figure) -> None:
    with a_ledger(database_url) as engine:
        invoice = with_lines(engine, "2026-09", 1_000_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, used = time.monotonic(), time.process_time()
        rows = records_of(engine, invoice)
        seconds, spent = time.monotonic() - started, time.process_time() - used
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert rows == 2 * 1_000_001
    assert grown < 30 * 1024, "KiB"
    figure(
        f"1,000,000 lines as CSV and as FOCUS: {seconds:.0f} s, {spent:.0f} s of one processor, "
        f"{grown} KiB more; load {os.getloadavg()[0]:.1f}"
    )


def test_every_level_of_a_small_month_comes_to_the_same_last_pico(
    database_url: str, figure: Figure
) -> None:
    every_level_agrees(database_url, 600, figure)


@pytest.mark.long
def test_a_million_events_come_to_the_same_last_pico_on_every_level(
    database_url: str, figure: Figure
) -> None:
    every_level_agrees(database_url, 1_000_000, figure)


def every_level_agrees(url: str, count: int, figure: Figure) -> None:
    with a_ledger(url) as engine:
        took: dict[str, float] = {}
        charged = timed(took, "booked", lambda: booked(engine, count))
        said = timed(took, "summed as they came", lambda: digest(engine))
        timed(took, "compacted", lambda: compaction.compact(engine))
        anew = timed(took, "rolled up anew", lambda: rolled_up_anew(engine))
        draft = timed(took, "drafted", lambda: drafted(engine))
        invoice = timed(took, "issued", lambda: issued_of(engine, draft))
        faults = timed(took, "all checked", lambda: checked(engine))
        levels = {name: sum_of(engine, name) for name in ("rows", "rollups", "postings", "lines")}
        listed, rounding = timed(took, "as CSV", lambda: csv_totals(engine, invoice))
        billed = timed(took, "as FOCUS", lambda: focus_total(engine, invoice))

    assert faults == ()
    assert anew == said
    assert levels == dict.fromkeys(levels, charged)
    assert listed == Decimal(format_picos(charged))
    assert listed + rounding == billed
    assert billed == Decimal(format_picos(minor_picos(invoice.total_minor, "USD")))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    figure(
        f"{count:,} events come to {format_picos(charged)} USD on every level: "
        + ", ".join(f"{name} in {s:.1f} s" for name, s in took.items())
        + f"; {memory} MiB at most; load {os.getloadavg()[0]:.1f}"
    )


def booked(engine: Engine, count: int) -> int:
    """Of 40 keys over all of October; what all of it was charged."""
    charged = 0
    for start in range(0, count, _BATCH):
        events = [an_event_of(n) for n in range(start, min(start + _BATCH, count))]
        charged += sum(event.charge_picos for event in events)
        usage.record(engine, [(event, True) for event in events])
    return charged


def an_event_of(n: int) -> UsageEvent:
    tokens = Meters(input=n % 977 + 1, cache_read=n % 101, output=n % 53)
    at_us = OCTOBER.start_us + n * 7_919_000_000 % (OCTOBER.end_us - OCTOBER.start_us)
    return october(f"req_{n}", clock.rfc3339(at_us), usage=tokens, key_id=f"key_{n % 40}")


def timed(took: dict[str, float], name: str, work: Callable[[], T]) -> T:
    started = time.monotonic()
    answer = work()
    took[name] = time.monotonic() - started
    return answer


def issued_of(engine: Engine, draft: Invoice) -> Invoice:
    with transaction(engine) as connection:
        found = issuing.locked(connection, draft)
        _, fresh = drafts.refresh(connection, found.tenant_id, found.period)
        return issuing.issue(connection, fresh, "adm_finance", early=False)


def checked(engine: Engine) -> tuple[str, ...]:
    with reading(engine) as connection:
        return books.check(connection).faults


def sum_of(engine: Engine, level: str) -> int:
    columns: dict[str, tuple[Any, Any]] = {
        "rows": (usage_rows.c.charge_picos, true()),
        "rollups": (rolled.c.charge_picos, true()),
        "postings": (
            postings.c.amount_picos,
            (postings.c.kind == "charge") & postings.c.account.like("receivable/%"),
        ),
        "lines": (invoice_lines.c.amount_picos, invoice_lines.c.line_kind == "usage"),
    }
    column, where = columns[level]
    with reading(engine) as connection:
        sums = exact_sum(connection.dialect.name, column)
        return whole(*connection.execute(select(*sums).where(where)).one())


def digest(engine: Engine) -> str:
    with reading(engine) as connection:
        return rollups.digest(connection)


def rolled_up_anew(engine: Engine) -> str:
    list(rebuilding.rebuild(engine))
    return digest(engine)


def csv_totals(engine: Engine, invoice: Invoice) -> tuple[Decimal, Decimal]:
    """Of usage, and of rounding, as somebody adds them up who reads the file."""
    lines = invoices.lines(engine, invoice.id)
    rows = csv_rows(lines, invoice_number=invoice.number, tenant="Acme", currency="USD")
    head = next(rows)
    amount, kind = head.index("amount"), head.index("line_kind")
    sums = {"usage": Decimal(0), "rounding": Decimal(0)}
    for row in rows:
        sums[row[kind]] += Decimal(row[amount])
    return sums["usage"], sums["rounding"]


def focus_total(engine: Engine, invoice: Invoice) -> Decimal:
    rows = focus.rows(invoices.lines(engine, invoice.id), bill_of(invoice), "1.2")
    column = next(rows).index("BilledCost")
    return sum((Decimal(row[column]) for row in rows), Decimal(0))


def bill_of(invoice: Invoice) -> Bill:
    return Bill(
        number=invoice.number,
        tenant_id=invoice.tenant_id,
        tenant="Acme",
        issuer="Meterhouse",
        currency=invoice.currency,
        period_start_us=invoice.period_start_us,
        period_end_us=invoice.period_end_us,
    )


def with_lines(engine: Engine, period: str, count: int) -> Invoice:
    """A draft that has so many lines."""
    invoice = drafted(engine, period)
    line = InvoiceLine(
        line_id="", cost_center="CC-1", team="Search", key="indexer", model="chat-default",
        backend_region="eu-west-1", meter="input", quantity=1_000, unit="Tokens",
        picos_per_token=3_000_000, price_version="price_1", amount_picos=3_000_000_000,
        amount_minor=0, period_start_us=invoice.period_start_us,
        period_end_us=invoice.period_end_us, provenance="reported", line_kind="usage",
    )  # fmt: skip
    same = tuple(getattr(line, name) for name in invoices.LINE_COLUMNS[1:])
    with transaction(engine) as connection:
        for start in range(0, count, _BATCH):
            numbers = range(start, min(start + _BATCH, count))
            rows = [(invoice.id, n + 1, f"line_{n:024d}", *same) for n in numbers]
            append(connection, invoice_lines, rows)
    return invoice


def exported(engine: Engine, invoice: Invoice) -> int:
    """The most memory that was in use for it."""
    tracemalloc.start()
    try:
        records_of(engine, invoice)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def records_of(engine: Engine, invoice: Invoice) -> int:
    """How many records both CSV forms have."""
    lines = invoices.lines(engine, invoice.id)
    forms = (
        csv_rows(lines, invoice_number=None, tenant="Acme", currency="USD"),
        focus.rows(invoices.lines(engine, invoice.id), bill_of(invoice), "1.2"),
    )
    return sum(1 for rows in forms for _ in csv_text(rows))
