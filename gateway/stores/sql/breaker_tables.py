"""The tables of loop breakers, and of the keys that they have blocked."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
)

from gateway.stores.sql.tables import metadata

loop_breakers: Final = Table(
    "loop_breakers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False, index=True),
    Column("scope_kind", Text, nullable=False),
    Column("scope_id", Text, nullable=False),
    Column("amount_per_minute", Text, nullable=False),
    Column("least_requests", Integer, nullable=False),
    Column("action", Text, nullable=False),  # alert | block
    Column("block_minutes", Integer, nullable=False),
    Column("version", Integer, nullable=False, default=1),
    Column("created_at_us", BigInteger, nullable=False),
    UniqueConstraint("scope_kind", "scope_id"),
)

# What was blocked stays told, whatever becomes of the key: nothing refers to it.
key_blocks: Final = Table(
    "key_blocks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("team_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("breaker_id", Text, nullable=False),
    Column("alert_id", Text, nullable=False),
    Column("shape", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("from_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("lifted_at_us", BigInteger),
    Column("version", Integer, nullable=False, default=1),
    Index("ix_key_blocks_until_us", "until_us"),
    Index("ix_key_blocks_key_id_from_us", "key_id", "from_us"),
)
