"""Rollups derived anew from the usage rows: the same bytes, if nobody changed either by hand.

One span of time after the other, each in a transaction of its own with one view of the database,
so that it goes on beside bookings: what is booked meanwhile appends deltas of its own, which this
leaves alone. Memory does not grow with the ledger.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    String,
    Table,
    case,
    delete,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError, OperationalError

from billing.rollups import BUCKET_US, KEY_FIELDS, SUM_FIELDS, bucket_us
from gateway import clock
from gateway.stores.sql.compaction import LOCK, is_overflow
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.rollups import COLUMNS
from gateway.stores.sql.tables import rollup_deltas, rollups, usage_rows

LONGEST_US: Final = 32 * 24 * 4 * BUCKET_US
_FIRST_US: Final = 4 * BUCKET_US
# A writer of SQLite waits for so long at most; where buckets have little in them, many go at once.
_SHORT_US: Final = 500_000
_LONG_US: Final = 2_000_000


class Rebuilt(NamedTuple):
    """How many rollups were put in the place of those of [start, end)."""

    start_us: int
    end_us: int
    rollups: int


def rebuild(engine: Engine, longest_us: int = LONGEST_US) -> Iterator[Rebuilt]:
    """All of them, `longest_us` of usage at once at most. Stopped half-way it leaves every rollup
    as it was or as it should be. OperationalError where another process rebuilds too.
    """
    tenants = _tenants(engine)
    start_us, last_us = _extent(engine, tenants)
    span_us = min(_FIRST_US, longest_us)
    while start_us <= last_us:
        end_us = min(start_us + span_us, last_us + BUCKET_US)
        began_us = clock.monotonic_us()
        with _alone(engine):
            made = _again(engine, tenants, start_us, end_us)
        took_us = clock.monotonic_us() - began_us
        yield Rebuilt(start_us, end_us, made)
        start_us = end_us
        if took_us < _SHORT_US:
            span_us = min(2 * span_us, longest_us)
        elif took_us > _LONG_US:
            span_us = max(span_us // 2 - span_us // 2 % BUCKET_US, BUCKET_US)


def _tenants(engine: Engine) -> list[str]:
    """One look at the index for each, not at all of their rows; and who only has rollups. Of one
    that comes later all is right from the start.
    """
    found = set()
    with reading(engine) as connection:
        for table in (usage_rows, rollups, rollup_deltas):
            next_one = select(func.min(table.c.tenant_id))
            known = connection.scalar(next_one)
            while known is not None:
                found.add(known)
                known = connection.scalar(next_one.where(table.c.tenant_id > known))
    return sorted(found)


def _extent(engine: Engine, tenants: Sequence[str]) -> tuple[int, int]:
    """The first bucket and the last one. What is booked beyond them meanwhile has its deltas."""
    first, last = [], []
    with reading(engine) as connection:
        for column in (usage_rows.c.admitted_at_us, rollups.c.bucket_us, rollup_deltas.c.bucket_us):
            for tenant_id in tenants:
                ends = select(func.min(column), func.max(column))
                of_tenant = column.table.c.tenant_id == tenant_id
                early, late = connection.execute(ends.where(of_tenant)).one()
                if early is not None:
                    first.append(bucket_us(early))
                    last.append(bucket_us(late))
    return (min(first), max(last)) if first else (0, -1)


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """While nobody compacts, who would change what a rebuild puts in its place. A connection of its
    own holds the lock, since a transaction's view is older than what it waited for.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": LOCK})
        yield


def _again(engine: Engine, tenants: Sequence[str], start_us: int, end_us: int) -> int:
    of = usage_rows.c
    rows = of.tenant_id.in_(tenants), of.admitted_at_us >= start_us, of.admitted_at_us < end_us
    with transaction(engine, one_view=True) as connection:
        for table in (rollups, rollup_deltas):
            c = table.c
            there = c.tenant_id.in_(tenants), c.bucket_us >= start_us, c.bucket_us < end_us
            connection.execute(delete(table).where(*there))
        try:
            with connection.begin_nested():
                return _put(connection, rollups, _summed().where(*rows))
        except (IntegrityError, OperationalError) as fault:
            if not is_overflow(fault):
                raise
        # SQLite cannot hold one of the sums; compaction leaves that one as it is.
        return _put(connection, rollup_deltas, _single().where(*rows))


def _put(connection: Connection, table: Table, query: Select[Any]) -> int:
    putting = table.insert().from_select(COLUMNS, query)
    done = connection.execute(putting, execution_options={"preserve_rowcount": True})
    return int(done.rowcount)


def _single() -> Select[Any]:
    figures = _figures()
    return select(*(figures[name].label(name) for name in COLUMNS))


def _summed() -> Select[Any]:
    figures = _figures()
    chosen = [
        func.sum(figures[name]) if name in SUM_FIELDS else figures[name]
        for name in COLUMNS
        if name != "currency"
    ]
    chosen.insert(COLUMNS.index("currency"), func.max(figures["currency"]))
    keys = [figures[name] for name in KEY_FIELDS]
    return select(*chosen).group_by(*keys).order_by(*keys)


def _figures() -> dict[str, ColumnElement[Any]]:
    """What one usage row adds to its rollup, as `billing.rollups.fold` has it."""
    of = usage_rows.c
    one = case((of.hold == "reversed", -1), else_=1)
    made: dict[str, ColumnElement[Any]] = {
        "bucket_us": of.admitted_at_us - of.admitted_at_us % BUCKET_US,
        "cost_card": func.coalesce(of.cost_card, literal("", String)),
        "attempts": one,
        "requests": case((of.winner, one), else_=0),
    }
    return {name: made[name] if name in made else of[name] for name in COLUMNS}
