"""When the accounts of a budget or limit had to be counted anew."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0003"
down_revision: Final = "0002"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    for table in ("budgets", "limits"):
        op.add_column(
            table,
            sa.Column("reopened_at_us", sa.BigInteger(), nullable=False, server_default="0"),
        )
