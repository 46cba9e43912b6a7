"""The names of deleted keys and teams."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0002"
down_revision: Final = "0001"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    op.create_table(
        "former_names",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cost_center", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_former_names")),
    )
    op.create_index(op.f("ix_former_names_tenant_id"), "former_names", ["tenant_id"])
