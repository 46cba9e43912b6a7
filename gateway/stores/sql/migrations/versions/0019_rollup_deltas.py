"""Rollups by deltas: who books appends, and waits for no rollup's row."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0019"
down_revision: Final = "0018"
branch_labels: Final = None
depends_on: Final = None

_TEXTS: Final = (
    "tenant_id", "team_id", "key_id", "model", "backend_id", "region", "provenance", "charge_card",
    "cost_card",
)  # fmt: skip
_COUNTS: Final = (
    "requests", "attempts", "input_tokens", "cache_read_tokens", "cache_write_5m_tokens",
    "cache_write_1h_tokens", "output_tokens",
)  # fmt: skip


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    picos = sa.BigInteger().with_variant(sa.Numeric(38, 0), "postgresql")
    op.create_table(
        "rollup_deltas",
        sa.Column("id", number, sa.Identity(), nullable=False),
        sa.Column("bucket_us", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in _TEXTS),
        sa.Column("winner", sa.Boolean(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTS),
        *(sa.Column(name, picos, nullable=False) for name in ("charge_picos", "cost_picos")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollup_deltas")),
    )
