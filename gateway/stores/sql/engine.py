"""How the database is opened, migrated, read and written. SQLite and PostgreSQL behave alike.

On SQLite a writing transaction begins IMMEDIATE: two writers queue up at BEGIN instead of failing
in the middle. On PostgreSQL a reading one is REPEATABLE READ, which SQLite's WAL gives anyway.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from gateway import clock
from gateway.failpoints import failpoint
from gateway.stores.sql import revisions

BUSY_TIMEOUT_S: Final = 10
_READ_ONLY: Final = "25006"
_SILENT: Final = {  # libpq's names
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 11_000,
}
_MIGRATION_LOCK: Final = 0x6D68_0001  # any number, the same for every process that migrates


def open_engine(url: str) -> Engine:
    """An engine for `sqlite:///...` or `postgresql://...`. ValueError for any other database."""
    parsed = _with_driver(make_url(url))
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed)
    return _open_postgres(parsed)


def close(engine: Engine) -> None:
    """For good. A thread that is still at it keeps its connection until it gives it back, and it is
    closed then: the pool, which is disposed of, would keep it.
    """
    event.listen(engine.pool, "checkin", _close_now)
    engine.dispose()


def _close_now(connection: DBAPIConnection | None, _record: ConnectionPoolEntry) -> None:
    if connection is not None:
        connection.close()


def _open_postgres(url: URL) -> Engine:
    """A database that falls silent fails what waits for it, in seconds; what the URL says of these
    parameters stands before ours.
    """
    engine = create_engine(
        url,
        connect_args={name: value for name, value in _SILENT.items() if name not in url.query},
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=5,
        pool_timeout=5,
    )
    event.listen(engine, "handle_error", _leave_replica)
    return engine


def _leave_replica(context: ExceptionContext) -> None:
    """A server that was the primary and is read-only now is left for whoever is the primary."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


def _with_driver(url: URL) -> URL:
    match url.drivername:
        case "postgres" | "postgresql":
            return url.set(drivername="postgresql+psycopg")
        case "postgresql+psycopg" | "sqlite":
            return url
        case other:
            raise ValueError(f"database {other!r} is not supported; use sqlite or postgresql")


def _open_sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise ValueError("an SQLite database needs a file; every process must see the same one")
    engine = create_engine(
        url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions of its own
    cursor = connection.cursor()
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")  # the ledger is the system of record
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """The switch of a new file needs it alone and, unlike everything else, does not wait for that:
    processes that open it for the first time together would refuse each other.
    """
    until_us = clock.monotonic_us() + BUSY_TIMEOUT_S * 1_000_000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if clock.monotonic_us() >= until_us:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get("meterhouse_reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


@contextmanager
def transaction(engine: Engine, *, one_view: bool = False) -> Iterator[Connection]:
    """One writing transaction: committed at the end, rolled back by any exception.

    With `one_view` all that is read inside belongs to one instant; OperationalError where somebody
    changed meanwhile what it changes.
    """
    if one_view and engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with engine.begin() as connection:
        yield connection
        failpoint("sql.commits")
    failpoint("sql.committed")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent view: all that is read inside belongs to one instant. Writing is an error."""
    options: dict[str, Any] = {"meterhouse_reading": True}
    if engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


class NewerSchemaError(Exception):
    """The schema is of a release that comes after this one."""


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest revision. Safe to call from several processes at once.

    Raises NewerSchemaError where a newer release was here.
    """
    with reading(engine) as connection:
        found = schema_revision(connection)
    if found == revisions.newest():
        return
    if found is not None and found > revisions.newest():
        raise NewerSchemaError(
            f"the database has schema {found} of a newer release, and this one knows none after"
            f" {revisions.newest()}; start that release, or go back to a backup"
        )
    # Loaded here: Alembic costs 15 MB and 0.2 s, and nearly every start finds nothing to do.
    from alembic import command  # noqa: PLC0415 - see above
    from alembic.config import Config  # noqa: PLC0415 - see above

    config = Config()
    config.set_main_option("script_location", str(revisions.MIGRATIONS).replace("%", "%%"))
    with transaction(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _MIGRATION_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def schema_revision(connection: Connection) -> str | None:
    """The revision that the database has; None before the first one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text(revisions.CURRENT)).scalar()
