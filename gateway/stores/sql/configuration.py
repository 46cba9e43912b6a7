"""Configuration as one value of one instant, and the revision that counts its changes.

Every change bumps the revision in its own transaction, before anything else. On PostgreSQL that
update locks the row, so changes happen one after the other and a check made inside (no cycle, same
currency, nothing refers to it) still holds when the change commits. SQLite has one writer anyway.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, select, update

from gateway import clock
from gateway.stores.sql import (
    backends,
    breakers,
    budgets,
    discounts,
    grants,
    keys,
    limits,
    models,
    policies,
    prices,
    pseudonym_keys,
    teams,
    tenants,
)
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.exact import most_picos
from gateway.stores.sql.rows import Configuration
from gateway.stores.sql.tables import config_state, store_epochs


@contextmanager
def changing(engine: Engine) -> Iterator[tuple[Connection, int]]:
    """A transaction that changes configuration, and the revision it will have made."""
    with transaction(engine) as connection:
        yield connection, bump(connection)


def bump(connection: Connection) -> int:
    statement = update(config_state).values(revision=config_state.c.revision + 1)
    return int(connection.execute(statement.returning(config_state.c.revision)).scalar_one())


def revision(engine: Engine) -> int:
    """The number of the newest change. Cheap: what workers poll when the bus is silent."""
    with reading(engine) as connection:
        return _revision(connection)


def heads(engine: Engine) -> tuple[int, dict[str, int]]:
    """As `revision`, and the epochs that were begun by then, by tag."""
    with reading(engine) as connection:
        return _revision(connection), _epochs(connection)


def load(engine: Engine) -> Configuration:
    """All a worker needs: active policies, approved prices, secrets that are not revoked."""
    with reading(engine) as connection:
        return Configuration(
            revision=_revision(connection),
            epochs=_epochs(connection),
            tenants=tenants.RECORDS.all(connection),
            teams=teams.RECORDS.all(connection),
            keys=keys.RECORDS.all(connection),
            secrets=keys.SECRETS.all(connection, revoked_at_us=None),
            backends=backends.RECORDS.all(connection),
            models=models.RECORDS.all(connection),
            policies=policies.active(connection),
            budgets=budgets.RECORDS.all(connection),
            grants=grants.in_force(connection, clock.now_us()),
            limits=limits.RECORDS.all(connection),
            prices=prices.RECORDS.all(connection, state="approved"),
            discounts=discounts.RECORDS.all(connection, state="approved"),
            blocks=breakers.in_force(connection, clock.now_us()),
            pseudonym_keys=pseudonym_keys.newest(connection),
            most_picos=most_picos(connection.dialect.name),
        )


def _epochs(connection: Connection) -> dict[str, int]:
    return {tag: int(number) for tag, number, *_ in connection.execute(select(store_epochs))}


def _revision(connection: Connection) -> int:
    return int(connection.execute(select(config_state.c.revision)).scalar_one())
