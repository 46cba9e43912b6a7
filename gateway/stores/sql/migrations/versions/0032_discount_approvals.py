"""Discounts may be drafts; who drafted one, and who approved it."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0032"
down_revision: Final = "0031"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    state = sa.Column("state", sa.Text(), nullable=False, server_default="approved")
    op.add_column("discounts", state)
    for name in ("drafted_by", "approved_by"):
        op.add_column("discounts", sa.Column(name, sa.Text()))
