"""Usage rows say in which service tier they are charged, which was asked for and which served."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0040"
down_revision: Final = "0039"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    for name in ("service_tier", "tier_asked", "tier_served"):
        op.add_column("usage_rows", sa.Column(name, sa.Text()))
