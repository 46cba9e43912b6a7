"""Who ended the rule of four eyes does not use that alone."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0025"
down_revision: Final = "0024"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.add_column("billing_terms", sa.Column("four_eyes_ended_by", sa.Text(), nullable=True))
