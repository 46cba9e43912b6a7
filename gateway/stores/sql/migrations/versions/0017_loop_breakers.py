"""Loop breakers, and the keys that they have blocked."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0017"
down_revision: Final = "0016"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.create_table(
        "loop_breakers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("scope_kind", sa.Text(), nullable=False),
        sa.Column("scope_id", sa.Text(), nullable=False),
        sa.Column("amount_per_minute", sa.Text(), nullable=False),
        sa.Column("least_requests", sa.Integer(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("block_minutes", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_loop_breakers_tenant_id_tenants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_loop_breakers")),
        sa.UniqueConstraint(
            "scope_kind", "scope_id", name=op.f("uq_loop_breakers_scope_kind_scope_id")
        ),
    )
    op.create_index(op.f("ix_loop_breakers_tenant_id"), "loop_breakers", ["tenant_id"])
    _blocks()


def _blocks() -> None:
    names = ("tenant_id", "team_id", "key_id", "breaker_id", "alert_id", "shape", "reason")
    op.create_table(
        "key_blocks",
        sa.Column("id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in names),
        sa.Column("from_us", sa.BigInteger(), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.Column("lifted_at_us", sa.BigInteger()),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_key_blocks")),
    )
    op.create_index("ix_key_blocks_until_us", "key_blocks", ["until_us"])
    op.create_index("ix_key_blocks_key_id_from_us", "key_blocks", ["key_id", "from_us"])
