"""What of a term invoices have is found without going through all their lines."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0037"
down_revision: Final = "0036"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    of_one = sa.text("commitment IS NOT NULL")
    op.create_index(
        "ix_invoice_lines_commitment",
        "invoice_lines",
        ["commitment"],
        sqlite_where=of_one,
        postgresql_where=of_one,
    )
