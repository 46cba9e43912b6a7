"""The tables of the ledger's chains: sealed blocks of entries. An entry is a usage row or an
invoice, with its postings. Triggers of the database let nothing that is sealed change or go.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, PrimaryKeyConstraint, Table, Text

from gateway.stores.sql.tables import metadata

# One row a chain: whoever seals holds it, so that blocks follow each other.
journal_chains: Final = Table(
    "journal_chains",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

# policies.seals.Block, and the ids of what it seals, packed and compressed.
journal_blocks: Final = Table(
    "journal_blocks",
    metadata,
    Column("chain", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("count", Integer, nullable=False),
    Column("sealed_at_us", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("entries", LargeBinary, nullable=False),
    PrimaryKeyConstraint("chain", "number"),
)

# What there was when the chains began: in no block of rows; `journal_origin` seals it as a whole.
journal_start: Final = Table(
    "journal_start",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("usage_rows", BigInteger, nullable=False),
    Column("postings", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)
