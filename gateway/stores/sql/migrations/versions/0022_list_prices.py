"""Beside what a contract asks for, invoice lines keep what the list asked for."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0022"
down_revision: Final = "0021"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.add_column(
        "invoice_lines", sa.Column("list_picos_per_token", sa.BigInteger(), nullable=True)
    )
