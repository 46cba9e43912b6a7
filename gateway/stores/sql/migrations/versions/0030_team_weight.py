"""Teams count with a weight where they wait for the same backend: 1, unless somebody says more."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0030"
down_revision: Final = "0029"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.add_column("teams", sa.Column("weight", sa.Integer(), nullable=False, server_default="1"))
