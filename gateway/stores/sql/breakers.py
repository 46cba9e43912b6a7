"""Loop breakers, and the blocks of keys that came of them. A block stays when it is over or lifted:
it says what a key was refused for, and until when.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from sqlalchemy import Connection, func, select

from gateway.stores.sql.breaker_tables import key_blocks, loop_breakers
from gateway.stores.sql.records import Records
from gateway.stores.sql.rows import KeyBlock, LoopBreaker

RECORDS: Final = Records(loop_breakers, LoopBreaker)
BLOCKS: Final = Records(key_blocks, KeyBlock)


def in_force(connection: Connection, now_us: int) -> tuple[KeyBlock, ...]:
    """Those that are neither over nor lifted."""
    of = key_blocks.c
    query = select(key_blocks).where(of.until_us > now_us, of.lifted_at_us.is_(None))
    return BLOCKS.rows(connection.execute(query.order_by(of.id)).mappings().all())


def forgiven(connection: Connection, tenant_id: str) -> Mapping[str, int]:
    """By key, until when what it did has been dealt with: its last block was lifted then, or is
    over. What ended before is no reason for another one.
    """
    of = key_blocks.c
    dealt = func.coalesce(of.lifted_at_us, of.until_us)
    rows = connection.execute(
        select(of.key_id, func.max(dealt)).where(of.tenant_id == tenant_id).group_by(of.key_id)
    )
    return {key_id: int(at_us) for key_id, at_us in rows}


def lifted(block: KeyBlock, now_us: int) -> KeyBlock:
    """The block as it is once somebody ended it."""
    return msgspec.structs.replace(block, lifted_at_us=now_us, version=block.version + 1)
