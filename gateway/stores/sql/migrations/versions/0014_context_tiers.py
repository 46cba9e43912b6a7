"""Prices that depend on the size of the prompt: the tiers of a price, as JSON."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0014"
down_revision: Final = "0013"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.add_column(
        "prices", sa.Column("context_tiers", sa.Text(), nullable=False, server_default="[]")
    )
