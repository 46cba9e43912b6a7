"""Deltas are added to their rollups: taken and added in one transaction, so each counts once."""

from typing import Any, Final, NamedTuple

from msgspec.structs import astuple
from sqlalchemy import Connection, Engine, delete, func, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from billing.rollups import KEY_FIELDS, SUM_FIELDS, Delta, merge
from gateway.stores.sql import rollups as store
from gateway.stores.sql.bulk import add_up, checked_sum
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.tables import rollup_deltas, rollups

AT_ONCE: Final = 20_000
LOCK: Final = 0x6D68_0003  # any number, the same for every process that compacts or rebuilds

_KEYS: Final = ", ".join(KEY_FIELDS)
_COLUMNS: Final = ", ".join((*KEY_FIELDS, "currency", *SUM_FIELDS))
_SUMS: Final = ", ".join(f"sum({name})" for name in SUM_FIELDS)
_ADDED: Final = ", ".join(f"{name} = rollups.{name} + excluded.{name}" for name in SUM_FIELDS)
_TAKE: Final = f"""
WITH taken AS (
    DELETE FROM rollup_deltas
    WHERE id IN (SELECT id FROM rollup_deltas WHERE id > %(after)s ORDER BY id LIMIT %(most)s)
    RETURNING *
), added AS (
    INSERT INTO rollups ({_COLUMNS})
    SELECT {_KEYS}, max(currency), {_SUMS} FROM taken GROUP BY {_KEYS} ORDER BY {_KEYS}
    ON CONFLICT ({_KEYS}) DO UPDATE SET {_ADDED}
)
SELECT count(*), max(id) FROM taken"""  # noqa: S608 - names of our own tables, no value of anybody's
_CHECKED: Final = ", ".join(f"{name} = {checked_sum('rollups', name)}" for name in SUM_FIELDS)
_ADD: Final = text(f"""
INSERT INTO rollups ({_COLUMNS})
SELECT {_KEYS}, max(currency), {_SUMS} FROM rollup_deltas WHERE id > :after AND id <= :last
GROUP BY {_KEYS}
ON CONFLICT ({_KEYS}) DO UPDATE SET {_CHECKED}""")  # noqa: S608 - as above


def pending(engine: Engine) -> int:
    """How many deltas are not added yet. What is read has them in any case."""
    with reading(engine) as connection:
        return connection.scalar(select(func.count()).select_from(rollup_deltas)) or 0


def compact(engine: Engine, most: int = AT_ONCE) -> int:
    """Add what was booked so far to the rollups, `most` deltas a transaction; answers how many were
    added. 0 while another process does the same.
    """
    added, page = 0, _Page(seen=most)
    while page.seen == most:
        with transaction(engine) as connection:
            page = _some(connection, page.last, most)
        added += page.added
    return added


class _Page(NamedTuple):
    seen: int = 0
    added: int = 0
    last: int = 0  # id; within one run only


def _some(connection: Connection, after: int, most: int) -> _Page:
    if connection.dialect.name != "postgresql":
        return _some_of_sqlite(connection, after, most)
    if not connection.scalar(text("SELECT pg_try_advisory_xact_lock(:n)"), {"n": LOCK}):
        return _Page()
    taken, last = connection.exec_driver_sql(_TAKE, {"after": after, "most": most}).one()
    return _Page(taken, taken, last or after)


def _some_of_sqlite(connection: Connection, after: int, most: int) -> _Page:
    of = rollup_deltas.c.id
    page = select(of).where(of > after).order_by(of).limit(most).subquery()
    seen, last = connection.execute(select(func.count(), func.max(page.c.id))).one()
    if not seen:
        return _Page()
    within = {"after": after, "last": last}
    try:
        with connection.begin_nested():
            connection.execute(_ADD, within)
            connection.execute(delete(rollup_deltas).where(of > after, of <= last))
    except (IntegrityError, OperationalError) as fault:
        if not is_overflow(fault):
            raise
        return _Page(seen, _one_by_one(connection, after, last), last)
    return _Page(seen, seen, last)


def is_overflow(fault: IntegrityError | OperationalError) -> bool:
    """Whether SQLite, which adds in 64 bits, says that a sum is beyond them."""
    return isinstance(fault, IntegrityError) or "integer overflow" in str(fault.orig)


def _one_by_one(connection: Connection, after: int, last: int) -> int:
    """What SQLite cannot hold in one row stays a delta: sums over both tables are exact."""
    of = rollup_deltas.c
    rows = connection.execute(select(rollup_deltas).where(of.id > after, of.id <= last))
    by_key: dict[tuple[Any, ...], list[tuple[int, Delta]]] = {}
    for found in rows.mappings():
        delta = Delta(**{name: found[name] for name in Delta.__struct_fields__})
        by_key.setdefault(astuple(delta)[: len(KEY_FIELDS)], []).append((found["id"], delta))
    added = 0
    for deltas in by_key.values():
        (merged,) = merge(delta for _, delta in deltas)
        try:
            with connection.begin_nested():
                add_up(connection, rollups, SUM_FIELDS, [store.row(merged)])
        except (IntegrityError, OverflowError):
            continue
        connection.execute(delete(rollup_deltas).where(of.id.in_([id_ for id_, _ in deltas])))
        added += len(deltas)
    return added
