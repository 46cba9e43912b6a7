"""Every table. Money is whole picos, never a float: BIGINT on SQLite, NUMERIC on PostgreSQL."""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from gateway.stores.sql.picos import Picos

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[str]:
    return Column("id", Text, primary_key=True)


def _kept() -> tuple[Column[Any], Column[Any]]:
    """Every configuration row carries a version (its ETag) and the time it was made."""
    return (
        Column("version", Integer, nullable=False, default=1),
        Column("created_at_us", BigInteger, nullable=False),
    )


def _texts(*names: str) -> tuple[Column[str], ...]:
    return tuple(Column(name, Text, nullable=False) for name in names)


def _scope() -> tuple[Column[Any], ...]:
    return (
        Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False, index=True),
        *_texts("scope_kind", "scope_id"),
    )


def _times(table: str, column: str) -> Index:
    """Where in a table, which grows with time, a span of it lies, for all tenants: some kilobytes.
    PostgreSQL's alone; on SQLite a start of another index does.
    """
    name = f"ix_{table}_{column}_brin"
    return Index(name, column, postgresql_using="brin").ddl_if(dialect="postgresql")


# One row: the revision that every change of configuration increments, in its own transaction.
config_state: Final = Table(
    "config_state",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("revision", BigInteger, nullable=False),
)

# The epoch of the store's counters that was begun last: a store that has an older one is stale.
store_epochs: Final = Table(
    "store_epochs",
    metadata,
    Column("tag", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("begun_at_us", BigInteger, nullable=False),
)

tenants: Final = Table(
    "tenants",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    *_texts("currency", "timezone"),
    Column("tag_names", Text),  # JSON array or null
    Column("end_users", Text, nullable=False, server_default="off"),  # off | pseudonym
    Column("shard", Text, nullable=False),
    *_kept(),
)

teams: Final = Table(
    "teams",
    metadata,
    _id(),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False, index=True),
    Column("parent_id", Text, ForeignKey("teams.id")),
    Column("name", Text, nullable=False),
    Column("cost_center", Text),
    Column("weight", Integer, nullable=False, server_default="1"),
    *_kept(),
    UniqueConstraint("tenant_id", "name"),
)

keys: Final = Table(
    "keys",
    metadata,
    _id(),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False, index=True),
    Column("team_id", Text, ForeignKey("teams.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("expires_at_us", BigInteger),
    Column("models", Text),  # JSON array or null
    Column("cidrs", Text),  # JSON array or null
    Column("revoked_at_us", BigInteger),
    *_kept(),
    UniqueConstraint("team_id", "name"),
)

key_secrets: Final = Table(
    "key_secrets",
    metadata,
    Column("public_id", Text, primary_key=True),
    Column("key_id", Text, ForeignKey("keys.id"), nullable=False, index=True),
    Column("digest", LargeBinary, nullable=False),
    Column("pepper_version", Integer, nullable=False),
    Column("expires_at_us", BigInteger),
    Column("revoked_at_us", BigInteger),
    Column("created_at_us", BigInteger, nullable=False),
)

backends: Final = Table(
    "backends",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    *_texts("dialect", "base_url", "region"),
    Column("jurisdictions", Text, nullable=False),  # JSON array
    Column("data_classes", Text, nullable=False, server_default="[]"),  # JSON array
    Column("placement", Text, nullable=False),
    Column("credential_sealed", LargeBinary),
    Column("max_concurrency", Integer),
    Column("provider", Text),
    Column("trusted", Boolean, nullable=False),
    Column("on_disconnect", Text, nullable=False),
    Column("connect_timeout_ms", Integer, nullable=False),
    Column("first_byte_timeout_ms", Integer, nullable=False),
    Column("idle_timeout_ms", Integer, nullable=False),
    Column("total_timeout_ms", Integer, nullable=False),
    Column("tco", Text),  # JSON object or null
    *_kept(),
    Column("tco_from_us", BigInteger),
)

models: Final = Table(
    "models",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("targets", Text, nullable=False),  # JSON array of Target
    Column("capabilities", Text, nullable=False),  # JSON array
    Column("context_window", Integer),
    Column("max_output_tokens", Integer),
    *_texts("encoding", "bytes_factor"),
    Column("image_tokens", Integer, nullable=False),
    Column("markup", Text, nullable=False),
    *_kept(),
)

# `version` of the row is the ETag; `policy_version` numbers the document.
policies: Final = Table(
    "policies",
    metadata,
    _id(),
    *_scope(),
    Column("name", Text, nullable=False),
    Column("latest_version", Integer, nullable=False),
    *_kept(),
    UniqueConstraint("scope_kind", "scope_id", "name"),
)

policy_versions: Final = Table(
    "policy_versions",
    metadata,
    Column("policy_id", Text, ForeignKey("policies.id"), nullable=False),
    Column("policy_version", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("activated_at_us", BigInteger),
    PrimaryKeyConstraint("policy_id", "policy_version"),
)

budgets: Final = Table(
    "budgets",
    metadata,
    _id(),
    *_scope(),
    *_texts("amount", "period", "mode", "outage"),
    Column("thresholds", Text, nullable=False),  # JSON array
    Column("reopened_at_us", BigInteger, nullable=False, server_default="0"),
    *_kept(),
    UniqueConstraint("scope_kind", "scope_id", "period"),
)

grants: Final = Table(
    "grants",
    metadata,
    _id(),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False, index=True),
    Column("budget_id", Text, ForeignKey("budgets.id"), nullable=False, index=True),
    Column("amount", Text, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    *_texts("approver", "reason"),
    Column("revoked_at_us", BigInteger),
    *_kept(),
)

limits: Final = Table(
    "limits",
    metadata,
    _id(),
    *_scope(),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("tokens_per_day", BigInteger),
    Column("concurrent_requests", BigInteger),
    Column("reopened_at_us", BigInteger, nullable=False, server_default="0"),
    *_kept(),
    UniqueConstraint("scope_kind", "scope_id"),
)

prices: Final = Table(
    "prices",
    metadata,
    _id(),
    Column("book", Text, nullable=False),
    Column("model", Text),
    Column("tenant_id", Text, ForeignKey("tenants.id")),
    Column("backend_id", Text, ForeignKey("backends.id")),
    Column("upstream_model", Text),
    *_texts("meter", "amount_per_million", "currency"),
    Column("context_tiers", Text, nullable=False, server_default="[]"),  # JSON array
    Column("quantity_tiers", Text),  # JSON object or null
    Column("drafted_by", Text),
    Column("approved_by", Text),
    Column("effective_from_us", BigInteger, nullable=False),
    *_texts("state", "source"),
    *_kept(),
    Column("service_tier", Text, nullable=False, server_default="standard"),
)

discounts: Final = Table(
    "discounts",
    metadata,
    _id(),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False, index=True),
    Column("percent", Text, nullable=False),
    Column("model", Text),  # null: every model
    Column("meter", Text),  # null: every meter
    Column("effective_from_us", BigInteger, nullable=False),
    *_kept(),
    Column("state", Text, nullable=False, server_default="approved"),  # draft | approved
    Column("drafted_by", Text),
    Column("approved_by", Text),
)

# What deleted keys and teams were called: usage that is booked late, and old invoices, name them.
former_names: Final = Table(
    "former_names",
    metadata,
    _id(),
    Column("tenant_id", Text, nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("cost_center", Text, nullable=False),  # of a team, its own or inherited
)

# -- the ledger ------------------------------------------------------------------------------------

rate_cards: Final = Table(
    "rate_cards",
    metadata,
    _id(),
    Column("currency", Text, nullable=False),
    Column("rates", LargeBinary, nullable=False),  # msgpack of billing.prices.RateCard.rates
)

usage_rows: Final = Table(
    "usage_rows",
    metadata,
    Column("event_id", Text, primary_key=True),  # L4: exactly one row an attempt
    Column("request_id", Text, nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("winner", Boolean, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("team_id", Text, nullable=False),  # the key's own team, last of team_path
    Column("team_path", Text, nullable=False),  # ids joined by "/"
    *_texts("key_id", "model", "backend_id", "upstream_model", "region", "operation"),
    Column("stream", Boolean, nullable=False),
    Column("admitted_at_us", BigInteger, nullable=False),
    Column("finished_at_us", BigInteger, nullable=False),
    Column("recorded_at_us", BigInteger, nullable=False),
    Column("ttft_us", BigInteger, nullable=False),
    Column("duration_us", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cache_write_5m_tokens", BigInteger, nullable=False),
    Column("cache_write_1h_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("provenance", Text, nullable=False),
    Column("reported", Text),  # JSON array of the five meters, or null
    Column("counted", Text),
    Column("currency", Text, nullable=False),
    Column("charge_card", Text, ForeignKey("rate_cards.id"), nullable=False),
    Column("cost_card", Text, ForeignKey("rate_cards.id")),
    Column("charge_picos", Picos, nullable=False),
    Column("cost_picos", Picos, nullable=False),
    Column("counter_nanos", BigInteger, nullable=False),
    Column("status", Integer, nullable=False),
    *_texts("end_by", "end_phase"),
    Column("tags", Text, nullable=False),  # JSON object
    Column("hold", Text, nullable=False),
    Column("shadow_of", Text, nullable=False, server_default=""),  # a request, or empty
    Column("end_user", Text),
    Column("service_tier", Text),  # null: the standard one, asked for and served
    Column("tier_asked", Text),
    Column("tier_served", Text),  # in the backend's own word
    Index("ix_usage_rows_tenant_admitted", "tenant_id", "admitted_at_us"),
    _times("usage_rows", "admitted_at_us"),
)


def _rollup_columns() -> tuple[Column[Any], ...]:
    return (
        Column("bucket_us", BigInteger, nullable=False),
        *_texts("tenant_id", "team_id", "key_id", "model", "backend_id", "region", "provenance"),
        Column("charge_card", Text, nullable=False),
        Column("cost_card", Text, nullable=False),  # "" where no cost price is known
        Column("winner", Boolean, nullable=False),
        Column("currency", Text, nullable=False),
        Column("requests", BigInteger, nullable=False),  # attempts that won
        Column("attempts", BigInteger, nullable=False),
        Column("input_tokens", BigInteger, nullable=False),
        Column("cache_read_tokens", BigInteger, nullable=False),
        Column("cache_write_5m_tokens", BigInteger, nullable=False),
        Column("cache_write_1h_tokens", BigInteger, nullable=False),
        Column("output_tokens", BigInteger, nullable=False),
        Column("charge_picos", Picos, nullable=False),
        Column("cost_picos", Picos, nullable=False),
    )


# 15-minute buckets by admission time (UTC): every zone's midnight is a bucket's edge. What is read
# are both tables together, as `stores.sql.rollups.rolled`.
rollups: Final = Table(
    "rollups",
    metadata,
    *_rollup_columns(),
    _times("rollups", "bucket_us"),
    PrimaryKeyConstraint(
        "tenant_id",
        "bucket_us",
        "team_id",
        "key_id",
        "model",
        "backend_id",
        "region",
        "provenance",
        "charge_card",
        "cost_card",
        "winner",
    ),
)

# What was booked and is not added to its rollup yet. Only ever appended to, and taken as a whole.
rollup_deltas: Final = Table(
    "rollup_deltas",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
    *_rollup_columns(),
)

# Double entry: the postings of one event and kind add up to zero. Append-only.
postings: Final = Table(
    "postings",
    metadata,
    Column("event_id", Text, nullable=False),
    Column("kind", Text, nullable=False),  # charge | cost
    *_texts("account", "tenant_id"),
    Column("amount_picos", Picos, nullable=False),  # debit positive, credit negative
    Column("currency", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("event_id", "kind", "account"),
    sqlite_with_rowid=False,
)
