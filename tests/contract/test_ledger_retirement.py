"""Decisions whose time is over lose their records and keep their hashes, on both databases."""

from concurrent.futures import ThreadPoolExecutor

import msgspec
from sqlalchemy import Engine, select, update

from gateway.stores.sql import audit, decisions, usage
from gateway.stores.sql.decision_tables import decision_blocks
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.retirement import Retired, retire
from tests.contract.test_ledger_decisions import all_of, decided
from tests.ledger_events import NOON_US, a_ledger

LONG_AFTER_US = 10 * NOON_US


def sealed(engine: Engine, count: int, chain: str = "s00") -> list[int]:
    """Blocks of one decision each, at the clock of the ledger; answers when they were sealed."""
    for n in range(count):
        usage.record(engine, [(decided(f"req_{chain}_{n:03}"), True)], chain)
    of = decision_blocks.c
    query = select(of.sealed_at_us).where(of.chain == chain).order_by(of.number)
    with reading(engine) as connection:
        return list(connection.execute(query).scalars())


def told(engine: Engine) -> list[Retired]:
    with reading(engine) as connection:
        rows = audit.RECORDS.all(connection, noun="decisions")
    return [msgspec.json.decode(row.after or "", type=Retired) for row in rows]


def test_old_records_go_and_the_chain_still_holds(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        times = sealed(engine, 4)

        gone = retire(engine, times[2], LONG_AFTER_US, "a test")

        assert gone == [Retired("s00", 1, 2, 2)]
        assert all_of(engine) == ["req_s00_002", "req_s00_003"]
        found = decisions.verify(engine)
        assert (found.fault, found.blocks, found.records, found.retired) == (None, 4, 4, 2)
        assert told(engine) == gone
        assert audit.verify(engine).broken_at is None


def test_what_is_gone_is_not_gone_again(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        sealed(engine, 2)
        retire(engine, LONG_AFTER_US, LONG_AFTER_US, "a test")

        assert retire(engine, LONG_AFTER_US, LONG_AFTER_US, "a test") == []
        sealed(engine, 1, "s01")
        assert retire(engine, LONG_AFTER_US, LONG_AFTER_US, "a test") == [Retired("s01", 1, 1, 1)]


def test_many_blocks_go_in_steps(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        sealed(engine, 201)

        first = retire(engine, LONG_AFTER_US, LONG_AFTER_US, "a test")
        second = retire(engine, LONG_AFTER_US, LONG_AFTER_US, "a test")

        assert (first, second) == ([Retired("s00", 1, 200, 200)], [Retired("s00", 201, 201, 1)])


def test_a_clock_that_was_set_back_leaves_no_hole(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        sealed(engine, 3)
        with transaction(engine) as connection:
            second = decision_blocks.c.number == 2
            ahead = update(decision_blocks).where(second).values(sealed_at_us=LONG_AFTER_US)
            connection.execute(ahead)

        assert retire(engine, LONG_AFTER_US, LONG_AFTER_US, "a test") == [Retired("s00", 1, 1, 1)]


def test_two_that_retire_at_once_take_each_block_once(database_url: str) -> None:
    with a_ledger(database_url) as engine:
        sealed(engine, 40)

        def step(_: int) -> list[Retired]:
            return retire(engine, LONG_AFTER_US, LONG_AFTER_US, "a test")

        with ThreadPoolExecutor(4) as pool:
            went = [each for some in pool.map(step, range(4)) for each in some]

        assert sum(each.records for each in went) == 40
        assert sorted(told(engine), key=lambda each: each.first_block) == sorted(
            went, key=lambda each: each.first_block
        )
        assert decisions.verify(engine).fault is None
