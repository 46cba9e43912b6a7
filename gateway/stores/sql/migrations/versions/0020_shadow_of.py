"""Usage of requests that were sent a second time says which request that was for."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0020"
down_revision: Final = "0019"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.add_column(
        "usage_rows", sa.Column("shadow_of", sa.Text(), nullable=False, server_default="")
    )
