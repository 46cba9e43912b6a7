"""The tables of what is billed: invoices and credit notes, their lines, the usage they cover, the
terms and rates they are made by, and where teams were billed to before they moved.

Triggers of the database keep what is issued as it is; only an issued one may become voided.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from gateway.stores.sql.picos import Picos
from gateway.stores.sql.tables import metadata


def _texts(*names: str) -> tuple[Column[str], ...]:
    return tuple(Column(name, Text, nullable=False) for name in names)


def _counts(*names: str) -> tuple[Column[int], ...]:
    return tuple(Column(name, BigInteger, nullable=False) for name in names)


invoices: Final = Table(
    "invoices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False),
    Column("period", Text, nullable=False),  # 2026-11
    Column("number", Text, unique=True),  # null until issued
    Column("status", Text, nullable=False),  # draft | issued | voided
    Column("currency", Text, nullable=False),
    *_counts("period_start_us", "period_end_us", "total_minor"),
    Column("version", Integer, nullable=False, default=1),
    *_counts("created_at_us"),
    Column("kind", Text, nullable=False, server_default="invoice"),  # invoice | credit_note
    Column("credits_invoice", Text),  # id of the invoice that a credit note takes from
    Column("early", Boolean, nullable=False, server_default="0"),  # the month was still running
    Column("drafted_by", Text),  # id of the principal who made the draft as it is
    Column("reason", Text),  # of a credit note
    Column("issued_at_us", BigInteger),
    Column("voided_at_us", BigInteger),
    Column("void_reason", Text),
    Column("terms", Text),  # JSON of billing.terms.Terms as they were at issue
    Column("content_sha256", Text),  # of lines.csv as it was at issue
    Column("exchange", Text),  # JSON of billing.exchange.Exchange, where it is in another currency
    UniqueConstraint("tenant_id", "period", "id"),
    Index("ix_invoices_credits_invoice", "credits_invoice"),
)

invoice_lines: Final = Table(
    "invoice_lines",
    metadata,
    Column("invoice_id", Text, ForeignKey("invoices.id"), nullable=False),
    Column("position", Integer, nullable=False),
    *_texts("line_id", "cost_center", "team", "key", "model", "backend_region", "meter"),
    *_counts("quantity"),
    *_texts("unit"),
    *_counts("picos_per_token"),
    *_texts("price_version"),
    Column("amount_picos", Picos, nullable=False),
    *_counts("period_start_us", "period_end_us"),
    *_texts("provenance", "line_kind"),
    Column("corrects_invoice", Text),
    Column("amount_minor", BigInteger, nullable=False, server_default="0"),
    Column("credits_line", Text),
    Column("list_picos_per_token", BigInteger),  # where a contract asks for another price
    Column("commitment", Text),  # key of the term that it draws on, or belongs to
    Column("commitment_picos", Picos),  # what of that it uses, or what is unused of it
    Column("commitment_paid", Boolean),  # of usage on it: whether it was charged before
    PrimaryKeyConstraint("invoice_id", "position"),
)
Index(
    "ix_invoice_lines_commitment",
    invoice_lines.c.commitment,
    sqlite_where=invoice_lines.c.commitment.is_not(None),
    postgresql_where=invoice_lines.c.commitment.is_not(None),
)

# What an invoice took from the rollups, by ids and with the names it was billed under: what is
# still to be billed of a month is its rollups less this of everything that was issued.
invoice_usage: Final = Table(
    "invoice_usage",
    metadata,
    Column("invoice_id", Text, ForeignKey("invoices.id"), nullable=False),
    Column("position", Integer, nullable=False),
    *_counts("period_start_us", "period_end_us"),
    *_texts("team_id", "key_id", "cost_center", "team", "key"),
    *_texts("model", "region", "provenance", "charge_card"),
    *_counts("input_tokens", "cache_read_tokens", "cache_write_5m_tokens"),
    *_counts("cache_write_1h_tokens", "output_tokens"),
    Column("charge_picos", Picos, nullable=False),
    PrimaryKeyConstraint("invoice_id", "position"),
)

# The last number that was given out in each series; taken and written by the issuing transaction.
invoice_series: Final = Table(
    "invoice_series",
    metadata,
    Column("series", Text, primary_key=True),
    *_counts("last_number"),
)

billing_terms: Final = Table(
    "billing_terms",
    metadata,
    Column("tenant_id", Text, ForeignKey("tenants.id"), primary_key=True),
    Column("terms", Text, nullable=False),  # JSON of billing.terms.Terms
    Column("version", Integer, nullable=False),
    Column("four_eyes_ended_by", Text),  # id of the principal who last did
)

# What tenants agreed to spend, effective-dated: `billing.commitments`. Days are of their calendar.
commitments: Final = Table(
    "commitments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False, index=True),
    *_texts("amount", "term", "first_day"),
    Column("last_day", Text),
    Column("prepaid", Boolean, nullable=False),
    *_texts("overage_percent", "rollover_percent"),
    Column("state", Text, nullable=False),  # draft | approved
    Column("drafted_by", Text),
    Column("approved_by", Text),
    Column("version", Integer, nullable=False),
    *_counts("created_at_us"),
)

# Where a team was and where it was billed to, until it was changed. What is now stands in `teams`.
team_places: Final = Table(
    "team_places",
    metadata,
    Column("team_id", Text, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("tenant_id", Text, nullable=False, index=True),
    Column("parent_id", Text),
    Column("cost_center", Text),
    PrimaryKeyConstraint("team_id", "until_us"),
)

# What one unit of `base` is worth in `quote`. Of two entries of a day the later one holds; neither
# ever changes.
exchange_rates: Final = Table(
    "exchange_rates",
    metadata,
    Column("id", Text, primary_key=True),
    *_texts("base", "quote", "rate", "day", "source"),
    Column("version", Integer, nullable=False),
    *_counts("created_at_us"),
    Column("state", Text, nullable=False, server_default="approved"),
    Column("drafted_by", Text),  # id of the principal who entered it
    Column("approved_by", Text),  # id of the principal who put the draft in force
    Column("draft_id", Text),  # the draft that it was
    Index("ix_exchange_rates_base_quote_day", "base", "quote", "day"),
    Index("ix_exchange_rates_draft_id", "draft_id", unique=True),
)
