"""Since when a box costs what its profile says: those there are keep what they counted from."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0036"
down_revision: Final = "0035"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.add_column("backends", sa.Column("tco_from_us", sa.BigInteger()))
    op.execute("UPDATE backends SET tco_from_us = created_at_us WHERE tco IS NOT NULL")
