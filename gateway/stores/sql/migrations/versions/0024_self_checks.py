"""What the ledger's nightly self-check found."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0024"
down_revision: Final = "0023"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    counts = ("usage_rows", "invoices", "entries")
    op.create_table(
        "self_checks",
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("began_at_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_us", sa.BigInteger()),
        *(sa.Column(each, sa.BigInteger(), nullable=False) for each in counts),
        sa.Column("faults", sa.Text(), nullable=False),
        sa.Column("heads", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_self_checks")),
    )
