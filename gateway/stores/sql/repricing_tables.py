"""The tables of proposals to price a month anew, and what each comes to by team and model."""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    ForeignKey,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

from gateway.stores.sql.tables import metadata


class Sum(TypeDecorator[int]):
    """Picos of a whole month: they may be more than SQLite's integers hold, so they are digits."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: int | None, _dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: Any, _dialect: Dialect) -> int | None:
        return None if value is None else int(value)


repricings: Final = Table(
    "repricings",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False, index=True),
    Column("period", Text, nullable=False),  # 2026-10, where the tenant is
    Column("model", Text),  # null: every model
    Column("state", Text, nullable=False),  # draft | approved | rejected
    Column("currency", Text, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("corrected", BigInteger, nullable=False),
    Column("unpriced", BigInteger, nullable=False),
    Column("old_picos", Sum, nullable=False),
    Column("new_picos", Sum, nullable=False),
    Column("old_tiers_picos", Sum, nullable=False),
    Column("new_tiers_picos", Sum, nullable=False),
    Column("drafted_by", Text, nullable=False),
    Column("decided_by", Text),
    Column("decided_at_us", BigInteger),
    Column("version", Integer, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
)

repricing_lines: Final = Table(
    "repricing_lines",
    metadata,
    Column("repricing_id", Text, ForeignKey("repricings.id"), nullable=False),
    Column("team_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("corrected", BigInteger, nullable=False),
    Column("old_picos", Sum, nullable=False),
    Column("new_picos", Sum, nullable=False),
    PrimaryKeyConstraint("repricing_id", "team_id", "model"),
)
