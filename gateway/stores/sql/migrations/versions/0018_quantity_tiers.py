"""Prices that depend on the quantity of a month: mode and tiers of a price, as JSON."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0018"
down_revision: Final = "0017"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.add_column("prices", sa.Column("quantity_tiers", sa.Text()))
