"""Schema 0044 on SQLite: postings are copied to where they lie by their keys."""

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from gateway.stores.sql import engine as sql
from gateway.stores.sql import revisions

ROWS = [
    (f"req_{number:05}:0", kind, account, "ten_a", amount, "USD", 1_700_000_000_000_000 + number)
    for number in (3, 1, 2, *range(10, 500))
    for kind, account, amount in (
        ("charge", "receivable/ten_a/team_a", 2**53 + number),
        ("charge", "revenue/ten_a", -(2**53) - number),
    )
]
REPLACED = "INSERT OR REPLACE INTO postings SELECT * FROM postings"


def upgraded(engine: Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(revisions.MIGRATIONS))
    with sql.transaction(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def found(engine: Engine) -> list[tuple[object, ...]]:
    with sql.reading(engine) as connection:
        return [tuple(row) for row in connection.execute(text("SELECT * FROM postings"))]


def test_what_was_posted_before_stays_and_cannot_be_touched(tmp_path: Path) -> None:
    engine = sql.open_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    upgraded(engine, "0043")
    with sql.transaction(engine) as connection:
        connection.exec_driver_sql("INSERT INTO postings VALUES (?, ?, ?, ?, ?, ?, ?)", ROWS)

    sql.migrate(engine)

    assert found(engine) == sorted(ROWS)
    for statement in ("UPDATE postings SET at_us = 0", "DELETE FROM postings", REPLACED):
        with (
            pytest.raises(DBAPIError, match="never changes"),
            sql.transaction(engine) as connection,
        ):
            connection.execute(text(statement))
    assert found(engine) == sorted(ROWS)
    with sql.reading(engine) as connection, pytest.raises(DBAPIError, match="rowid"):
        connection.execute(text("SELECT rowid FROM postings"))
    sql.close(engine)
