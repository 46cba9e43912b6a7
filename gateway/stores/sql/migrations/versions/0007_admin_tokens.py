"""Admin tokens with roles, and their secrets as keyed hashes."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0007"
down_revision: Final = "0006"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.create_table(
        "admin_tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("scope_kind", sa.Text(), nullable=False),
        sa.Column("scope_id", sa.Text(), nullable=False),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at_us", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_admin_tokens"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_admin_tokens_tenant_id"),
        sa.UniqueConstraint(
            "scope_kind", "scope_id", "name", name="uq_admin_tokens_scope_kind_scope_id_name"
        ),
    )
    op.create_index("ix_admin_tokens_tenant_id", "admin_tokens", ["tenant_id"])
    op.create_table(
        "admin_token_secrets",
        sa.Column("public_id", sa.Text(), nullable=False),
        sa.Column("token_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("pepper_version", sa.Integer(), nullable=False),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at_us", sa.BigInteger(), nullable=True),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("public_id", name="pk_admin_token_secrets"),
        sa.ForeignKeyConstraint(
            ["token_id"], ["admin_tokens.id"], name="fk_admin_token_secrets_token_id"
        ),
    )
    op.create_index("ix_admin_token_secrets_token_id", "admin_token_secrets", ["token_id"])
