"""The tables of provider bills: what was imported, and its lines. Nothing of them ever changes."""

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, PrimaryKeyConstraint, Table, Text

from gateway.stores.sql.picos import Picos
from gateway.stores.sql.tables import metadata

provider_bills: Final = Table(
    "provider_bills",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("backend_ids", Text, nullable=False),  # JSON array: whose attempts it bills
    Column("period", Text, nullable=False),  # 2026-10, of UTC
    Column("currency", Text, nullable=False),
    Column("decimals", Integer, nullable=False),
    Column("rows", Integer, nullable=False),  # of the file
    Column("total_picos", Picos, nullable=False),
    Column("sha256", Text, nullable=False),  # of the file
    Column("imported_by", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
)

provider_bill_lines: Final = Table(
    "provider_bill_lines",
    metadata,
    Column("bill_id", Text, ForeignKey("provider_bills.id"), nullable=False),
    Column("day", Text, nullable=False),  # 2026-10-14
    Column("model", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("amount_picos", Picos, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("repeated_quantity", BigInteger, nullable=False),
    Column("repeated_picos", Picos, nullable=False),
    PrimaryKeyConstraint("bill_id", "day", "model", "meter"),
)
