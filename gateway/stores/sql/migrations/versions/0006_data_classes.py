"""The kinds of data that a backend is cleared for."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0006"
down_revision: Final = "0005"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.add_column(
        "backends", sa.Column("data_classes", sa.Text(), nullable=False, server_default="[]")
    )
