"""Approved prices, and discounts that are in force, are kept by the database itself, on both."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from gateway.stores.sql import discounts, prices
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.rows import Discount, Price
from tests.invoicing import ACME
from tests.ledger_events import a_ledger
from tests.tampering import by_hand

AHEAD_US = 4_000_000_000_000_000  # in 2096


def price(name: str, **given: object) -> Price:
    fields: dict[str, Any] = {
        "id": name, "book": "charge", "model": "m", "meter": "input", "currency": "USD",
        "amount_per_million": "3.00", "effective_from_us": 1,
    }  # fmt: skip
    return Price(**(fields | given))


def off(name: str, since_us: int, state: str = "approved") -> Discount:
    return Discount(id=name, tenant_id=ACME, percent="5", effective_from_us=since_us, state=state)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with a_ledger(database_url) as engine:
        with transaction(engine) as connection:
            prices.RECORDS.add(connection, price("p_old"))
            prices.RECORDS.add(connection, price("p_ahead", effective_from_us=AHEAD_US))
            prices.RECORDS.add(connection, price("p_draft", state="draft"))
            discounts.RECORDS.add(connection, off("d_old", 1))
            discounts.RECORDS.add(connection, off("d_ahead", AHEAD_US))
            discounts.RECORDS.add(connection, off("d_draft", 1, "draft"))
        yield engine


KEPT = (
    "UPDATE prices SET amount_per_million = '2.00' WHERE id = 'p_old'",
    "UPDATE prices SET effective_from_us = 2 WHERE id = 'p_old'",
    "UPDATE prices SET model = 'n' WHERE id = 'p_old'",
    "UPDATE prices SET tenant_id = 'tenant_acme' WHERE id = 'p_old'",
    "UPDATE prices SET context_tiers = '[]', quantity_tiers = '{}' WHERE id = 'p_old'",
    "UPDATE prices SET service_tier = 'batch' WHERE id = 'p_old'",
    "UPDATE prices SET state = 'draft' WHERE id = 'p_old'",
    "UPDATE prices SET amount_per_million = '2.00' WHERE id = 'p_ahead'",
    "DELETE FROM prices WHERE id = 'p_old'",
    "UPDATE discounts SET percent = '50' WHERE id = 'd_old'",
    "UPDATE discounts SET tenant_id = 'tenant_bharat' WHERE id = 'd_old'",
    "UPDATE discounts SET state = 'draft' WHERE id = 'd_old'",
    "DELETE FROM discounts WHERE id = 'd_old'",
)


@pytest.fixture
def kept(engine: Engine) -> Iterator[Engine]:
    def all_of_it() -> list[object]:
        with reading(engine) as connection:
            return [*prices.RECORDS.all(connection), *discounts.RECORDS.all(connection)]

    before = all_of_it()
    yield engine
    assert all_of_it() == before


def test_what_is_in_force_is_not_changed_by_hand(kept: Engine) -> None:
    for statement in KEPT:
        with pytest.raises(DBAPIError, match="never changes"):
            by_hand(kept, statement)


def test_who_signed_it_and_what_is_not_in_force_may_be_written(engine: Engine) -> None:
    by_hand(
        engine,
        "UPDATE prices SET approved_by = 'adm_1', version = 2 WHERE id = 'p_old'",
        "UPDATE prices SET amount_per_million = '2.00' WHERE id = 'p_draft'",
        "UPDATE prices SET state = 'approved' WHERE id = 'p_draft'",
        "DELETE FROM prices WHERE id = 'p_ahead'",
        "UPDATE discounts SET percent = '6' WHERE id IN ('d_ahead', 'd_draft')",
        "DELETE FROM discounts WHERE id IN ('d_ahead', 'd_draft')",
    )

    with reading(engine) as connection:
        assert connection.scalar(text("SELECT count(*) FROM prices")) == 2
        assert connection.scalar(text("SELECT count(*) FROM discounts")) == 1


@pytest.mark.parametrize("table", ["prices", "discounts"])
def test_they_are_not_truncated_either(postgres_url: str, table: str) -> None:
    with (
        a_ledger(postgres_url) as engine,
        pytest.raises(DBAPIError, match="never changes"),
    ):
        by_hand(engine, f"TRUNCATE {table}")


def test_they_are_not_replaced_either(sqlite_url: str) -> None:
    with a_ledger(sqlite_url) as engine:
        with transaction(engine) as connection:
            for row in (price("p_old"), price("p_draft", state="draft")):
                prices.RECORDS.add(connection, row)
            for other in (off("d_old", 1), off("d_draft", 1, "draft")):
                discounts.RECORDS.add(connection, other)
        for table, name in (("prices", "p"), ("discounts", "d")):
            for statement in (
                f"INSERT OR REPLACE INTO {table} SELECT * FROM {table} WHERE id = '{name}_old'",
                f"UPDATE OR REPLACE {table} SET id = '{name}_old' WHERE id = '{name}_draft'",
            ):
                with pytest.raises(DBAPIError, match="never changes"):
                    by_hand(engine, statement)
