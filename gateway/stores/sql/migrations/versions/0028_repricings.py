"""Proposals to price a month anew."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0028"
down_revision: Final = "0027"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.create_table(
        "repricings",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("corrected", sa.BigInteger(), nullable=False),
        sa.Column("unpriced", sa.BigInteger(), nullable=False),
        sa.Column("old_picos", sa.Text(), nullable=False),
        sa.Column("new_picos", sa.Text(), nullable=False),
        sa.Column("old_tiers_picos", sa.Text(), nullable=False),
        sa.Column("new_tiers_picos", sa.Text(), nullable=False),
        sa.Column("drafted_by", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decided_at_us", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repricings")),
    )
    op.create_index(op.f("ix_repricings_tenant_id"), "repricings", ["tenant_id"])
    op.create_table(
        "repricing_lines",
        sa.Column("repricing_id", sa.Text(), nullable=False),
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("corrected", sa.BigInteger(), nullable=False),
        sa.Column("old_picos", sa.Text(), nullable=False),
        sa.Column("new_picos", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repricing_id"], ["repricings.id"], name=op.f("fk_repricing_lines_repricing_id")
        ),
        sa.PrimaryKeyConstraint(
            "repricing_id", "team_id", "model", name=op.f("pk_repricing_lines")
        ),
    )
