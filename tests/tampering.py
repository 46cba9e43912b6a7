"""Somebody who may write to the database: by hand, and with its triggers switched off."""

from sqlalchemy import Connection, Engine, text

from gateway.stores.sql import books
from gateway.stores.sql.engine import transaction


def by_hand(engine: Engine, *statements: str) -> None:
    with transaction(engine) as connection:
        for statement in statements:
            connection.execute(text(statement))


def behind_the_triggers(engine: Engine, *statements: str) -> None:
    """They are there again afterwards."""
    with transaction(engine) as connection:
        _tamper(connection, statements)


def faults_after(engine: Engine, *statements: str) -> tuple[str, ...]:
    """What the books say of it; it is undone."""
    with engine.connect() as connection, connection.begin() as undone:
        _tamper(connection, statements)
        found = books.check(connection).faults
        undone.rollback()
    return found


def _tamper(connection: Connection, statements: tuple[str, ...]) -> None:
    triggers: list[tuple[str, str]] = []
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL session_replication_role = replica"))
    else:
        kept = text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        triggers = [(name, sql) for name, sql in connection.execute(kept)]
    for name, _ in triggers:
        connection.execute(text(f"DROP TRIGGER {name}"))
    for statement in statements:
        connection.execute(text(statement))
    for _, sql in triggers:
        connection.exec_driver_sql(sql)
