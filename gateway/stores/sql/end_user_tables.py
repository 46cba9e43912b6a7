"""The tables of end users: the keys that hash them, and who they are in the ledger. None is in any
chain, so that what links a person to the ledger can go, and the ledger stays.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)

from gateway.stores.sql.tables import metadata, usage_rows

pseudonym_keys: Final = Table(
    "pseudonym_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False),
    Column("key_version", Integer, nullable=False),
    Column("credential_sealed", LargeBinary, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    UniqueConstraint("tenant_id", "key_version"),
)

# `pseudonym` is a keyed hash of the name, `subject` what usage rows have instead: drawn by chance,
# so that without this row nothing leads from one to the other. No subject: erased. A tenant may be
# gone when the last of its usage is booked, so nothing refers to it. When the row was made is not
# kept: a subject's id says when it was drawn, and would be found by it.
end_users: Final = Table(
    "end_users",
    metadata,
    Column("pseudonym", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False, index=True),
    Column("subject", Text, unique=True),
    Column("erased_at_us", BigInteger),
)

_SOMEBODY: Final = usage_rows.c.end_user.is_not(None)

Index(
    "ix_usage_rows_end_user",
    usage_rows.c.end_user,
    sqlite_where=_SOMEBODY,
    postgresql_where=_SOMEBODY,
)
