"""End users: the keys that hash them, who they are in the ledger, and a column for it there."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0033"
down_revision: Final = "0032"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    setting = sa.Column("end_users", sa.Text(), nullable=False, server_default="off")
    op.add_column("tenants", setting)
    op.add_column("usage_rows", sa.Column("end_user", sa.Text()))
    somebody = sa.text("end_user IS NOT NULL")
    op.create_index(
        "ix_usage_rows_end_user",
        "usage_rows",
        ["end_user"],
        sqlite_where=somebody,
        postgresql_where=somebody,
    )
    op.create_table(
        "pseudonym_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("key_version", sa.Integer(), nullable=False),
        sa.Column("credential_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_pseudonym_keys_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pseudonym_keys")),
        sa.UniqueConstraint(
            "tenant_id", "key_version", name=op.f("uq_pseudonym_keys_tenant_id_key_version")
        ),
    )
    op.create_table(
        "end_users",
        sa.Column("pseudonym", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text()),
        sa.Column("erased_at_us", sa.BigInteger()),
        sa.PrimaryKeyConstraint("pseudonym", name=op.f("pk_end_users")),
        sa.UniqueConstraint("subject", name=op.f("uq_end_users_subject")),
    )
    op.create_index(op.f("ix_end_users_tenant_id"), "end_users", ["tenant_id"])
