"""What a call has made that may be sent again, where its answer was lost."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0041"
down_revision: Final = "0040"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.create_table(
        "repeatable_calls",
        *(sa.Column(each, sa.Text(), nullable=False) for each in ("actor_id", "key")),
        *(sa.Column(each, sa.Text(), nullable=False) for each in ("digest", "object_id")),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("actor_id", "key", name=op.f("pk_repeatable_calls")),
    )
    op.create_index(op.f("ix_repeatable_calls_at_us"), "repeatable_calls", ["at_us"])
