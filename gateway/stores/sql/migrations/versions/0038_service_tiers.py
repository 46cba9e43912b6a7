"""A price is for a service tier; those that there are, are for the standard one."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0038"
down_revision: Final = "0037"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.add_column(
        "prices",
        sa.Column("service_tier", sa.Text(), nullable=False, server_default="standard"),
    )
