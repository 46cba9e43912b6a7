"""The table of what became of the versions of policies: append-only, gone with its policy."""

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, PrimaryKeyConstraint, Table, Text

from gateway.stores.sql.tables import metadata

policy_steps: Final = Table(
    "policy_steps",
    metadata,
    Column("policy_id", Text, ForeignKey("policies.id", ondelete="CASCADE"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("policy_version", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("author", Text),  # null: not known
    Column("reason", Text),
    PrimaryKeyConstraint("policy_id", "seq"),
)
