"""The tables of the admin plane's own: who may use it, and what they did.

Triggers of the database keep those of the audit chain append-only.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)

from gateway.stores.sql.tables import metadata

# Who may use the admin API, and as what. `scope_kind` is platform, tenant or team.
admin_tokens: Final = Table(
    "admin_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), index=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("scope_kind", Text, nullable=False),
    Column("scope_id", Text, nullable=False),
    Column("expires_at_us", BigInteger),
    Column("revoked_at_us", BigInteger),
    Column("version", Integer, nullable=False, default=1),
    Column("created_at_us", BigInteger, nullable=False),
    UniqueConstraint("scope_kind", "scope_id", "name"),
)

admin_token_secrets: Final = Table(
    "admin_token_secrets",
    metadata,
    Column("public_id", Text, primary_key=True),
    Column("token_id", Text, ForeignKey("admin_tokens.id"), nullable=False, index=True),
    Column("digest", LargeBinary, nullable=False),
    Column("pepper_version", Integer, nullable=False),
    Column("expires_at_us", BigInteger),
    Column("revoked_at_us", BigInteger),
    Column("created_at_us", BigInteger, nullable=False),
    Column("made_by", Text),  # ids, a space between: whoever could have seen it
)

# What calls that named an idempotency key have made. `digest` is of what was asked.
repeatable_calls: Final = Table(
    "repeatable_calls",
    metadata,
    Column("actor_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False, index=True),
)

# One row: the end of the chain. Whoever appends locks it first, so the chain never forks.
audit_head: Final = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)

# In the order in which they are hashed, up to `prev_hash`. Ids sort as the numbers they hold.
audit_rows: Final = Table(
    "audit_rows",
    metadata,
    Column("seq", BigInteger, nullable=False),
    Column("id", Text, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("actor_id", Text, nullable=False),
    Column("actor_name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("operation", Text, nullable=False),  # PUT /budgets/{id}
    Column("noun", Text, nullable=False),
    Column("object_id", Text, nullable=False, index=True),
    Column("tenant_id", Text, index=True),  # where the object lay; null: the platform's own
    Column("team_id", Text),
    Column("before", Text),  # JSON object of the facts that changed, or null
    Column("after", Text),
    Column("address", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    UniqueConstraint("seq"),
)
