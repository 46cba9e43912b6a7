"""The audit chain on both databases: it only grows, never forks, and shows what was done to it."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from gateway.stores.sql import audit
from gateway.stores.sql.admin_tables import audit_head, audit_rows
from gateway.stores.sql.audit import Entry, Head
from gateway.stores.sql.configuration import changing
from gateway.stores.sql.engine import open_engine, reading, transaction
from tests.schema import with_tables

ENTRY = Entry(
    at_us=1_790_000_000_000_000,
    actor_id="bootstrap",
    actor_name="Zoë",
    role="platform_admin",
    operation="PUT /budgets/{id}",
    noun="budgets",
    object_id="bud_1",
    tenant_id="tenant_1",
    before='{"amount":"1"}',
    after='{"amount":"2"}',
    address="192.0.2.1",
    request_id="req_1",
)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = with_tables(database_url)
    yield engine
    engine.dispose()


def grown(engine: Engine, rows: int) -> list[audit.AuditRow]:
    with transaction(engine) as connection:
        entries = [msgspec.structs.replace(ENTRY, object_id=f"bud_{n}") for n in range(rows)]
        audit.append(connection, entries)
    with reading(engine) as connection:
        return list(audit.RECORDS.page(connection, {}))


def test_an_empty_chain_holds(engine: Engine) -> None:
    found = audit.verify(engine)

    assert (found.checked, found.broken_at) == (0, None)
    assert found.head == Head(0, audit.GENESIS)
    assert audit.verify(engine, found.head).broken_at is None
    assert audit.verify(engine, Head(0, "1" * 64)).broken_at == 1


def test_each_row_is_hashed_over_its_content_and_the_one_before(engine: Engine) -> None:
    rows = grown(engine, 3)

    found = audit.verify(engine)

    assert [row.seq for row in rows] == [1, 2, 3]
    assert [row.prev_hash for row in rows] == [audit.GENESIS, rows[0].hash, rows[1].hash]
    assert len({row.hash for row in rows}) == 3
    assert (found.checked, found.broken_at) == (3, None)
    assert found.head == Head(3, rows[2].hash)


def test_a_change_that_is_rolled_back_leaves_no_row(engine: Engine) -> None:
    def fail(connection: Any) -> None:
        audit.append(connection, [ENTRY])
        raise RuntimeError

    with pytest.raises(RuntimeError), transaction(engine) as connection:
        fail(connection)

    assert audit.verify(engine).head.seq == 0


def test_processes_that_append_at_once_make_one_chain(engine: Engine, database_url: str) -> None:
    """As admin processes do: each with an engine of its own, some with a change of configuration
    and some without one.
    """
    faults: list[Exception] = []

    def run(number: int) -> None:
        own = open_engine(database_url)
        try:
            for turn in range(10):
                entries = [msgspec.structs.replace(ENTRY, object_id=f"{number}.{turn}.{n}")
                           for n in range(turn % 3)]  # fmt: skip
                if number % 2:
                    with changing(own) as (connection, _):
                        audit.append(connection, entries)
                else:
                    with transaction(own) as connection:
                        audit.append(connection, entries)
        except Exception as fault:  # noqa: BLE001 - reported below
            faults.append(fault)
        finally:
            own.dispose()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert faults == []
    found = audit.verify(engine)
    assert (found.checked, found.broken_at, found.reason) == (36, None, "")


@pytest.mark.parametrize(
    "statement",
    [
        update(audit_rows).values(actor_id="somebody else"),
        delete(audit_rows),
        delete(audit_head),
        update(audit_head).values(seq=0, hash=audit.GENESIS),
        update(audit_head).values(seq=9),
        insert(audit_head).values(id=2, seq=0, hash=audit.GENESIS),
    ],
    ids=["change", "delete", "no head", "rewind", "leap", "two heads"],
)
def test_the_database_itself_refuses_whatever_is_not_an_append(
    engine: Engine, statement: Any
) -> None:
    grown(engine, 2)

    with pytest.raises(DBAPIError), transaction(engine) as connection:
        connection.execute(statement)

    assert audit.verify(engine).broken_at is None


def test_a_row_cannot_be_put_in_the_place_of_another(engine: Engine) -> None:
    first, _ = grown(engine, 2)
    values = msgspec.structs.asdict(first) | {"actor_id": "somebody else"}
    verb = "INSERT OR REPLACE INTO" if engine.dialect.name == "sqlite" else "INSERT INTO"
    columns = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join(f":{name}" for name in values)
    upsert = "" if engine.dialect.name == "sqlite" else " ON CONFLICT (id) DO NOTHING"

    with pytest.raises(DBAPIError), transaction(engine) as connection:
        connection.execute(text(f"{verb} audit_rows ({columns}) VALUES ({marks}){upsert}"), values)

    assert audit.verify(engine).broken_at is None


def test_postgres_refuses_to_truncate_the_chain(engine: Engine) -> None:
    grown(engine, 1)

    if engine.dialect.name == "postgresql":
        with pytest.raises(DBAPIError), transaction(engine) as connection:
            connection.execute(text("TRUNCATE audit_rows"))

    assert audit.verify(engine).checked == 1


def without_triggers(engine: Engine, work: Callable[[Any], None]) -> None:
    """What somebody can do who owns the database."""
    with transaction(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("ALTER TABLE audit_rows DISABLE TRIGGER USER"))
            connection.execute(text("ALTER TABLE audit_head DISABLE TRIGGER USER"))
        else:
            names = connection.execute(
                text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            ).scalars()
            for name in list(names):
                connection.execute(text(f"DROP TRIGGER {name}"))
        work(connection)


@pytest.mark.parametrize("column", [c.name for c in audit_rows.columns if c.name != "seq"])
def test_whatever_is_changed_in_a_row_is_found_at_that_row(engine: Engine, column: str) -> None:
    rows = grown(engine, 4)
    changed = {"at_us": 1, "prev_hash": rows[0].hash, "hash": rows[0].hash}.get(column, "changed")

    without_triggers(
        engine,
        lambda connection: connection.execute(
            update(audit_rows).where(audit_rows.c.seq == 3).values({column: changed})
        ),
    )

    found = audit.verify(engine)
    assert (found.checked, found.broken_at) == (2, 3)


@pytest.mark.parametrize(
    ("gone", "checked", "reason"),
    [(1, 0, "row 1 is missing"), (3, 2, "row 3 is missing"), (4, 3, "ends at row 3")],
)
def test_a_row_that_was_taken_out_is_missed(
    engine: Engine, gone: int, checked: int, reason: str
) -> None:
    grown(engine, 4)

    without_triggers(
        engine,
        lambda connection: connection.execute(delete(audit_rows).where(audit_rows.c.seq == gone)),
    )

    found = audit.verify(engine)
    assert (found.checked, found.broken_at) == (checked, gone)
    assert reason in found.reason


def test_two_rows_that_changed_places_are_found(engine: Engine) -> None:
    grown(engine, 4)

    def swap(connection: Any) -> None:
        for old, new in ((2, 99), (3, 2), (99, 3)):
            connection.execute(update(audit_rows).where(audit_rows.c.seq == old).values(seq=new))

    without_triggers(engine, swap)

    assert audit.verify(engine).broken_at == 2


def test_a_chain_that_was_made_anew_holds_and_does_not_hold_against_its_anchor(
    engine: Engine,
) -> None:
    rows = grown(engine, 3)
    anchor = Head(rows[1].seq, rows[1].hash)
    assert audit.verify(engine, anchor).broken_at is None

    def forge(connection: Any) -> None:
        connection.execute(delete(audit_rows))
        connection.execute(update(audit_head).values(seq=0, hash=audit.GENESIS))
        audit.append(connection, [msgspec.structs.replace(ENTRY, actor_name="nobody")] * 3)

    without_triggers(engine, forge)

    assert audit.verify(engine).broken_at is None
    assert audit.verify(engine, anchor).broken_at == 2


def test_a_chain_that_was_cut_off_before_its_anchor_is_found(engine: Engine) -> None:
    rows = grown(engine, 3)
    anchor = Head(rows[2].seq, rows[2].hash)

    def cut(connection: Any) -> None:
        connection.execute(delete(audit_rows).where(audit_rows.c.seq == 3))
        connection.execute(update(audit_head).values(seq=2, hash=rows[1].hash))

    without_triggers(engine, cut)

    assert audit.verify(engine).broken_at is None
    assert audit.verify(engine, anchor).broken_at == 3


def test_ids_sort_as_the_numbers_they_hold(engine: Engine) -> None:
    rows = grown(engine, 12)

    with reading(engine) as connection:
        by_id = connection.execute(select(audit_rows.c.seq).order_by(audit_rows.c.id)).scalars()
        assert list(by_id) == [row.seq for row in rows]
