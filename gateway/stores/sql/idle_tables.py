"""The table of what boxes of our own cost beyond their tokens, as it was booked: it stays so."""

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, Table, Text, UniqueConstraint

from gateway.stores.sql.picos import Picos
from gateway.stores.sql.tables import metadata

idle_bookings: Final = Table(
    "idle_bookings",
    metadata,
    Column("id", Text, primary_key=True),
    Column("backend_id", Text, nullable=False),
    Column("period", Text, nullable=False),  # 2026-10, of UTC
    Column("number", Integer, nullable=False),  # 1: the first of its backend and month
    Column("rule", Text, nullable=False),  # platform | busy | even
    Column("currency", Text, nullable=False),
    Column("from_us", BigInteger, nullable=False),  # in which the box has the cost of its profile
    Column("to_us", BigInteger, nullable=False),
    Column("busy_us", BigInteger, nullable=False),
    Column("actual_picos", Picos, nullable=False),
    Column("absorbed_picos", Picos, nullable=False),
    Column("parts", Text, nullable=False),  # JSON: what this booking adds to those before it
    Column("profile", Text, nullable=False),  # JSON: billing.tco.Profile
    Column("booked_by", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    UniqueConstraint("backend_id", "period", "number"),
)
