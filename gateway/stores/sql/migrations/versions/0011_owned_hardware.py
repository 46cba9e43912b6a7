"""What a backend's own hardware costs: its profile, as JSON."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0011"
down_revision: Final = "0010"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.add_column("backends", sa.Column("tco", sa.Text()))
