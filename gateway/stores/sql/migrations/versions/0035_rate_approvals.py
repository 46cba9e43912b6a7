"""Exchange rates may be drafts; what approves one is a row of its own, as rows never change."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0035"
down_revision: Final = "0034"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    state = sa.Column("state", sa.Text(), nullable=False, server_default="approved")
    op.add_column("exchange_rates", state)
    for name in ("drafted_by", "approved_by", "draft_id"):
        op.add_column("exchange_rates", sa.Column(name, sa.Text()))
    op.create_index("ix_exchange_rates_draft_id", "exchange_rates", ["draft_id"], unique=True)
