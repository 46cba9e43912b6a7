"""The tables of alerts: who is to be told, what was, and whether it arrived."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from gateway.stores.sql.tables import metadata

alert_channels: Final = Table(
    "alert_channels",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False, index=True),
    Column("scope_kind", Text, nullable=False),
    Column("scope_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("secret_sealed", LargeBinary, nullable=False),
    Column("rules", Text, nullable=False),  # JSON array
    Column("least_amount", Text, nullable=False),
    Column("version", Integer, nullable=False, default=1),
    Column("created_at_us", BigInteger, nullable=False),
    UniqueConstraint("scope_kind", "scope_id", "name"),
)

# What was told stays, whatever becomes of its budget: no key refers to it.
alerts: Final = Table(
    "alerts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("scope_kind", Text, nullable=False),
    Column("scope_id", Text, nullable=False),
    Column("budget_id", Text, nullable=False),
    Column("window_id", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("mark", Text, nullable=False),
    Column("cap", Text, nullable=False),  # another cap is another alert
    Column("amount", Text, nullable=False),
    Column("expected", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("remedy", Text, nullable=False),
    Column("link", Text, nullable=False),
    Column("fired_at_us", BigInteger, nullable=False),
    UniqueConstraint("budget_id", "window_id", "rule", "mark", "cap"),
    Index("ix_alerts_tenant_id_fired_at_us", "tenant_id", "fired_at_us"),
)

alert_deliveries: Final = Table(
    "alert_deliveries",
    metadata,
    Column("alert_id", Text, ForeignKey("alerts.id"), nullable=False),
    Column("channel_id", Text, nullable=False),
    Column("state", Text, nullable=False),  # waiting | delivered | given_up
    Column("attempts", Integer, nullable=False),
    Column("next_at_us", BigInteger, nullable=False),
    Column("ended_at_us", BigInteger),
    Column("fault", Text),
    PrimaryKeyConstraint("alert_id", "channel_id"),
    Index("ix_alert_deliveries_state_next_at_us", "state", "next_at_us"),
)
