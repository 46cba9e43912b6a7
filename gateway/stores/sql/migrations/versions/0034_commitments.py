"""What tenants commit to, and what of it the lines of their invoices use."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0034"
down_revision: Final = "0033"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    texts = ("amount", "term", "first_day", "overage_percent", "rollover_percent", "state")
    op.create_table(
        "commitments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in texts),
        *(sa.Column(name, sa.Text()) for name in ("last_day", "drafted_by", "approved_by")),
        sa.Column("prepaid", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_commitments_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitments")),
    )
    op.create_index(op.f("ix_commitments_tenant_id"), "commitments", ["tenant_id"])
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    picos = sa.Numeric(38, 0) if is_postgresql else sa.BigInteger()
    op.add_column("invoice_lines", sa.Column("commitment", sa.Text()))
    op.add_column("invoice_lines", sa.Column("commitment_picos", picos))
    op.add_column("invoice_lines", sa.Column("commitment_paid", sa.Boolean()))
