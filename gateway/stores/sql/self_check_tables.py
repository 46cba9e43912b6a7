"""The table of the ledger's self-checks: one a day, what was looked at and what did not agree."""

from typing import Final

from sqlalchemy import BigInteger, Column, Table, Text

from gateway.stores.sql.tables import metadata

self_checks: Final = Table(
    "self_checks",
    metadata,
    Column("day", Text, primary_key=True),  # 2026-11-22, of UTC
    Column("began_at_us", BigInteger, nullable=False),
    Column("ended_at_us", BigInteger),  # null while somebody is at it, or died of it
    Column("usage_rows", BigInteger, nullable=False),
    Column("invoices", BigInteger, nullable=False),
    Column("entries", BigInteger, nullable=False),
    Column("faults", Text, nullable=False),  # JSON array
    Column("heads", Text, nullable=False),  # JSON array of CHAIN:BLOCK:HASH
)
