"""Who drafted a price, and who approved it."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0021"
down_revision: Final = "0020"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    for name in ("drafted_by", "approved_by"):
        op.add_column("prices", sa.Column(name, sa.Text()))
