"""Who made a secret of an admin token, and so has seen it."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0031"
down_revision: Final = "0030"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.add_column("admin_token_secrets", sa.Column("made_by", sa.Text()))
