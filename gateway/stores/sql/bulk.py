"""Rows in by the thousand, by each driver's own fast path: executemany on SQLite, else COPY.

Rows are tuples in the order of the table's columns. The caller sorts them by primary key, so that
two writers of the same rows wait for each other instead of deadlocking.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import msgspec
from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    Table,
    Text,
    any_,
    bindparam,
    func,
    select,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

Row = tuple[Any, ...]
_ALREADY_THERE: Final = "23505"  # SQLSTATE


def insert_new(connection: Connection, table: Table, rows: Sequence[Row]) -> set[Any]:
    """Insert the rows whose primary key (their first column) is not there yet; answers those keys.

    Exact under concurrency: a writing transaction is alone on SQLite, and PostgreSQL decides row by
    row with the unique index.
    """
    if not rows:
        return set()
    key = table.columns[0]
    there = select(key).where(among(connection, key, [row[0] for row in rows]))
    known = set(connection.scalars(there))
    fresh = {row[0]: row for row in rows if row[0] not in known}
    if fresh and connection.dialect.name == "postgresql":
        return _copy_new(connection, table, list(fresh.values()))
    append(connection, table, list(fresh.values()))
    return set(fresh)


def _copy_new(connection: Connection, table: Table, rows: Sequence[Row]) -> set[Any]:
    """Straight into the table, where each row is written once. Where another transaction had one of
    the keys first, its end is waited for, and a temporary table sorts out what is new.
    """
    try:
        with connection.begin_nested():
            append(connection, table, rows)
    except IntegrityError as fault:
        if getattr(fault.orig, "sqlstate", None) != _ALREADY_THERE:
            raise
    else:
        return {row[0] for row in rows}
    staged = _stage(connection, table, rows)
    key = table.columns[0].name
    found = connection.exec_driver_sql(
        f"{_move_text(table, staged)} ORDER BY {key} ON CONFLICT ({key}) DO NOTHING RETURNING {key}"
    )
    return set(found.scalars())


def append(
    connection: Connection, table: Table, rows: Sequence[Row], into: str | None = None
) -> None:
    """Insert rows that must all be new; IntegrityError otherwise. `into` names another table that
    has the columns of `table`, and fills by itself what it has besides.
    """
    if not rows:
        return
    name = into or table.name
    if connection.dialect.name == "postgresql":
        _copy(connection, name, table, rows)
    else:
        connection.exec_driver_sql(_insert_text(table, name), list(rows))


def add_up(connection: Connection, table: Table, sums: Sequence[str], rows: Sequence[Row]) -> None:
    """Insert rows, or add their `sums` columns to the row that has the same primary key.

    On SQLite a sum beyond 2^63 would silently become a float; here it is an IntegrityError.
    """
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        staged = _stage(connection, table, rows)
        keys = [column.name for column in table.primary_key]
        changes = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in sums)
        connection.exec_driver_sql(
            f"{_move_text(table, staged)} ORDER BY {', '.join(keys)} "
            f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}"
        )
    else:
        connection.exec_driver_sql(_add_text(table, tuple(sums)), list(rows))


def among(
    connection: Connection, column: Column[Any], values: Sequence[str]
) -> ColumnElement[bool]:
    """`column IN values` as one parameter: thousands of them take longer to write, and to be read,
    than what they name takes to be found.
    """
    if connection.dialect.name == "postgresql":
        return column == any_(bindparam(None, list(values), type_=ARRAY(Text)))
    packed = msgspec.json.encode(values).decode()
    return column.in_(select(func.json_each(packed).table_valued("value").c.value))


def _stage(connection: Connection, table: Table, rows: Sequence[Row]) -> str:
    """The rows in a temporary table of this connection, which empties itself at commit."""
    name = f"incoming_{table.name}"
    connection.exec_driver_sql(
        f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} (LIKE {table.name}) ON COMMIT DELETE ROWS;"  # noqa: S608 - names of our own tables, no value of anybody's
        f"DELETE FROM {name}"  # it may be in use for the second time in this transaction
    )
    _copy(connection, name, table, rows)
    return name


def _copy(connection: Connection, name: str, table: Table, rows: Sequence[Row]) -> None:
    driver: Any = connection.connection.driver_connection
    errors = connection.dialect.loaded_dbapi.Error
    statement = f"COPY {name} {_columns(table)} FROM STDIN"
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except errors as fault:  # SQLAlchemy does not see this call: callers still expect its errors
        raise DBAPIError.instance(
            statement, None, fault, errors, dialect=connection.dialect
        ) from fault


@cache
def _columns(table: Table) -> str:
    return f"({', '.join(_quoted(column.name) for column in table.columns)})"


def _move_text(table: Table, staged: str) -> str:
    columns = _columns(table)
    return f"INSERT INTO {table.name} {columns} SELECT {columns[1:-1]} FROM {staged}"  # noqa: S608 - names of our own tables, no value of anybody's


@cache
def _insert_text(table: Table, name: str) -> str:
    marks = ", ".join("?" * len(table.columns))
    return f"INSERT INTO {name} {_columns(table)} VALUES ({marks})"  # noqa: S608 - names of our own tables, no value of anybody's


@cache
def _add_text(table: Table, sums: tuple[str, ...]) -> str:
    keys = ", ".join(column.name for column in table.primary_key)
    changes = ", ".join(f"{name} = {checked_sum(table.name, name)}" for name in sums)
    return f"{_insert_text(table, table.name)} ON CONFLICT ({keys}) DO UPDATE SET {changes}"


def checked_sum(table: str, name: str) -> str:
    """NULL, which every summed column refuses, where integer addition fell back to a float."""
    total = f"{table}.{name} + excluded.{name}"
    return f"CASE typeof({total}) WHEN 'integer' THEN {total} END"


def _quoted(name: str) -> str:
    return f'"{name}"'
