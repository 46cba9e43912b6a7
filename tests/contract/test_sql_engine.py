"""The database: migrated, transactional, and the same on SQLite and PostgreSQL."""

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DatabaseError

from gateway.stores.sql import configuration, revisions
from gateway.stores.sql.engine import (
    NewerSchemaError,
    close,
    migrate,
    open_engine,
    reading,
    schema_revision,
    transaction,
)
from gateway.stores.sql.tables import config_state, metadata
from tests import servers


@pytest.fixture
def postgres_url(postgres_server_url: str) -> Iterator[str]:
    """Of a database without tables, as a first start finds it."""
    with servers.fresh_database(postgres_server_url) as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


def test_the_migrated_schema_is_the_declared_one(engine: Engine) -> None:
    migrate(engine)

    with engine.connect() as connection:
        options = {"include_object": partial(_is_of, connection.dialect.name)}
        context = MigrationContext.configure(connection, opts=options)
        differences = compare_metadata(context, metadata)

    assert differences == []


def _is_of(dialect: str, _thing: Any, name: str | None, *_: Any) -> bool:
    """Alembic does not ask `ddl_if`, which says that SQLite has no such index."""
    return dialect == "postgresql" or not (name or "").endswith("_brin")


def test_migrating_again_changes_nothing_and_keeps_the_data(engine: Engine) -> None:
    migrate(engine)
    with configuration.changing(engine) as (_, revision):
        assert revision == 2

    migrate(engine)

    assert configuration.revision(engine) == 2


def test_a_schema_of_a_newer_release_is_left_alone_and_named(engine: Engine) -> None:
    migrate(engine)
    with transaction(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(NewerSchemaError, match="schema 9999 of a newer release"):
        migrate(engine)


def test_what_is_not_migrated_yet_has_no_revision(engine: Engine) -> None:
    with reading(engine) as connection:
        assert schema_revision(connection) is None

    migrate(engine)

    with reading(engine) as connection:
        assert schema_revision(connection) == revisions.newest()


def test_the_newest_revision_is_the_one_that_alembic_ends_with(engine: Engine) -> None:
    migrate(engine)

    with engine.connect() as connection:
        heads = MigrationContext.configure(connection).get_current_heads()

    assert heads == (revisions.newest(),)


def test_processes_that_migrate_at_once_all_succeed(engine: Engine, database_url: str) -> None:
    faults: list[Exception] = []

    def run() -> None:
        own = open_engine(database_url)
        try:
            migrate(own)
        except Exception as fault:  # noqa: BLE001 - reported below
            faults.append(fault)
        finally:
            own.dispose()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert faults == []
    assert configuration.revision(engine) == 1


def test_a_failed_transaction_leaves_nothing_behind(engine: Engine) -> None:
    migrate(engine)

    with pytest.raises(RuntimeError), configuration.changing(engine):
        raise RuntimeError

    assert configuration.revision(engine) == 1


def test_a_reading_view_does_not_see_what_is_committed_after_it_began(engine: Engine) -> None:
    migrate(engine)

    with reading(engine) as connection:
        before = connection.execute(select(config_state.c.revision)).scalar_one()
        with transaction(engine) as writer:
            configuration.bump(writer)
        after = connection.execute(select(config_state.c.revision)).scalar_one()

    assert (before, after) == (1, 1)
    assert configuration.revision(engine) == 2


def test_concurrent_changes_each_get_a_revision_of_their_own(engine: Engine) -> None:
    migrate(engine)
    revisions: list[int] = []

    def change() -> None:
        for _ in range(10):
            with configuration.changing(engine) as (_, revision):
                revisions.append(revision)

    threads = [threading.Thread(target=change) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(revisions) == list(range(2, 42))


def test_a_dangling_reference_is_refused_by_the_database_itself(engine: Engine) -> None:
    migrate(engine)
    team = metadata.tables["teams"]

    with pytest.raises(DatabaseError), transaction(engine) as connection:
        connection.execute(
            team.insert().values(id="t", tenant_id="nobody", name="x", version=1, created_at_us=0)
        )


@pytest.mark.parametrize("url", ["mysql://root@localhost/x", "sqlite://", "sqlite:///:memory:"])
def test_a_database_that_cannot_serve_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match=r"SQLite database needs a file|not supported"):
        open_engine(url)


def test_a_file_is_known_to_be_current_once_it_is_migrated(sqlite_url: str) -> None:
    assert not revisions.known_current(sqlite_url)
    engine = open_engine(sqlite_url)
    try:
        with transaction(engine) as connection:
            connection.execute(text("CREATE TABLE other (id INTEGER)"))
        assert not revisions.known_current(sqlite_url)

        migrate(engine)

        assert revisions.known_current(sqlite_url)
        with transaction(engine) as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
        assert not revisions.known_current(sqlite_url)
    finally:
        engine.dispose()


def test_nothing_is_known_of_a_database_that_is_no_such_file(tmp_path: Path) -> None:
    odd = tmp_path / "odd.db"
    odd.write_bytes(b"not a database, but longer than nothing" * 100)

    assert not revisions.known_current(f"sqlite:///{odd}")
    assert not revisions.known_current("postgresql://127.0.0.1/meterhouse")


def test_what_a_thread_still_reads_with_is_closed_when_it_gives_it_back(database_url: str) -> None:
    engine = open_engine(database_url)
    with reading(engine) as connection:
        raw = connection.connection.driver_connection
        close(engine)
        assert connection.scalar(text("SELECT 1")) == 1
    assert raw is not None
    with pytest.raises(Exception, match="closed"):
        raw.cursor().execute("SELECT 1")
