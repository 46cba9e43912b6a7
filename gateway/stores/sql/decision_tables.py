"""The tables of decisions: sealed blocks, the chains they are in, what decisions have in common."""

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, PrimaryKeyConstraint, Table
from sqlalchemy.types import Text

from gateway.stores.sql.tables import metadata

# One row a chain: whoever seals holds it, so that blocks follow each other.
decision_chains: Final = Table(
    "decision_chains",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

# policies.seals.Block, and what it seals: packed records, compressed; null once their time is over.
decision_blocks: Final = Table(
    "decision_blocks",
    metadata,
    Column("chain", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("count", Integer, nullable=False),
    Column("sealed_at_us", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("first_us", BigInteger, nullable=False),  # the span of its decisions
    Column("last_us", BigInteger, nullable=False),
    Column("records", LargeBinary),
    PrimaryKeyConstraint("chain", "number"),
    Index("ix_decision_blocks_sealed_at_us", "sealed_at_us"),
)

# What decisions have in common, under its digest: the policy in force and every candidate.
decision_standings: Final = Table(
    "decision_standings",
    metadata,
    Column("digest", Text, primary_key=True),  # hex
    Column("standing", LargeBinary, nullable=False),
)
