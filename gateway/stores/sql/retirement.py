"""Decisions whose time is over: their records go, their hashes stay, so that the chain still holds.

Each chain loses its oldest blocks' records first, and the audit chain tells of it in the same
transaction: records that are missing with no such row were taken by somebody else.
"""

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, and_, select, update

from gateway.stores.sql import audit
from gateway.stores.sql.decision_tables import decision_blocks, decision_chains
from gateway.stores.sql.engine import reading, transaction

_AT_ONCE: Final = 200  # blocks


class Retired(msgspec.Struct, frozen=True):
    """What went in one step: blocks `first` to `last` of the chain, and how many records."""

    chain: str
    first_block: int
    last_block: int
    records: int


def retire(engine: Engine, before_us: int, now_us: int, operation: str) -> list[Retired]:
    """Takes the records out of blocks that were sealed before `before_us` (Unix microseconds),
    some of each chain; answers what went, and nothing once there is no more.
    """
    with reading(engine) as connection:
        chains = connection.execute(select(decision_chains.c.chain)).scalars().all()
    went = (_retire(engine, chain, before_us, now_us, operation) for chain in sorted(chains))
    return [each for each in went if each is not None]


def _retire(
    engine: Engine, chain: str, before_us: int, now_us: int, operation: str
) -> Retired | None:
    of = decision_blocks.c
    with transaction(engine) as connection:
        blocks = _oldest(connection, chain, before_us)
        if not blocks:
            return None
        gone = Retired(
            chain, blocks[0].number, blocks[-1].number, sum(each.count for each in blocks)
        )
        span = and_(of.chain == chain, of.number.between(gone.first_block, gone.last_block))
        connection.execute(update(decision_blocks).where(span).values(records=None))
        audit.append(connection, [_entry(gone, now_us, operation)])
        return gone


def _oldest(connection: Connection, chain: str, before_us: int) -> list[Any]:
    """Up to the first that stays: a clock that was set back leaves no hole in the chain."""
    of = decision_blocks.c
    kept = (of.chain == chain) & of.records.is_not(None)
    query = select(of.number, of.count, of.sealed_at_us).where(kept).order_by(of.number)
    going = []
    for block in connection.execute(query.limit(_AT_ONCE).with_for_update()):
        if block.sealed_at_us >= before_us:
            break
        going.append(block)
    return going


def _entry(gone: Retired, now_us: int, operation: str) -> audit.Entry:
    return audit.Entry(
        at_us=now_us,
        actor_id="jobs",
        actor_name="jobs",
        role="system",
        operation=operation,
        noun="decisions",
        object_id=gone.chain,
        after=msgspec.json.encode(gone).decode(),
        address="",
        request_id="",
    )
