"""Rows by the thousand: each key once, whoever else writes it at the same time."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, func, select, text

from gateway.stores.sql.bulk import insert_new
from gateway.stores.sql.decision_tables import decision_standings
from gateway.stores.sql.engine import reading, transaction
from tests.schema import with_tables

WITHIN_S = 30.0


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = with_tables(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Engine]:
    engine = with_tables(postgres_url)
    yield engine
    engine.dispose()


def rows(*numbers: int) -> list[tuple[str, bytes]]:
    return [(f"{n:04d}", b"standing") for n in numbers]


def test_what_is_there_already_is_left_out(engine: Engine) -> None:
    with transaction(engine) as connection:
        assert insert_new(connection, decision_standings, rows(1, 2, 3)) == {"0001", "0002", "0003"}
        assert insert_new(connection, decision_standings, rows(2, 3, 4)) == {"0004"}
        assert insert_new(connection, decision_standings, rows(2, 3)) == set()
        assert insert_new(connection, decision_standings, []) == set()

    assert count(engine) == 4


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "rolled back"])
def test_a_key_that_another_transaction_has_is_waited_for(
    postgres: Engine, committed: bool
) -> None:
    with ThreadPoolExecutor(1) as pool, postgres.connect() as first:
        insert_new(first, decision_standings, rows(2, 3))
        second = pool.submit(_inserted, postgres, rows(1, 2, 3, 4))
        _until_somebody_waits(postgres)
        (first.commit if committed else first.rollback)()

        new = second.result(WITHIN_S)

    there = {"0001", "0002", "0003", "0004"}
    assert new == (there - {"0002", "0003"} if committed else there)
    assert count(postgres) == 4


def test_many_writers_of_the_same_keys_have_each_of_them_once(engine: Engine) -> None:
    writers, began = 6, threading.Barrier(6)

    def write(writer: int) -> int:
        began.wait(WITHIN_S)
        spans = [range(start, start + 40) for start in range(0, 200, 20)]
        return sum(len(_inserted(engine, rows(*span))) for span in spans[writer % 2 :])

    with ThreadPoolExecutor(writers) as pool:
        new = sum(pool.map(write, range(writers)))

    assert new == count(engine) == 220


def _inserted(engine: Engine, some: list[tuple[str, bytes]]) -> set[str]:
    with transaction(engine) as connection:
        return insert_new(connection, decision_standings, some)


def _until_somebody_waits(engine: Engine) -> None:
    until = time.monotonic() + WITHIN_S
    while not _waiting(engine):
        assert time.monotonic() < until
        time.sleep(0.01)


def _waiting(engine: Engine) -> int:
    with reading(engine) as connection:
        query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return int(connection.scalar(query) or 0)


def count(engine: Engine) -> int:
    with reading(engine) as connection:
        return int(connection.scalar(select(func.count()).select_from(decision_standings)) or 0)
