"""Spans of time of all tenants are found without reading the whole table."""

from typing import Final

from alembic import op

revision: Final = "0027"
down_revision: Final = "0026"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table, column in (("usage_rows", "admitted_at_us"), ("rollups", "bucket_us")):
            name = f"ix_{table}_{column}_brin"
            op.create_index(name, table, [column], postgresql_using="brin")
