"""What boxes of our own cost beyond their tokens, as it is booked. It stays as it is."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0039"
down_revision: Final = "0038"
branch_labels: Final = None
depends_on: Final = None

_WORDS: Final = "what is booked never changes; corrections are rows of their own"


def upgrade() -> None:
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    picos = sa.Numeric(38, 0) if is_postgresql else sa.BigInteger()
    texts = ("rule", "currency", "parts", "profile", "booked_by")
    times = ("from_us", "to_us", "busy_us", "created_at_us")
    op.create_table(
        "idle_bookings",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("backend_id", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in texts),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in times),
        sa.Column("actual_picos", picos, nullable=False),
        sa.Column("absorbed_picos", picos, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idle_bookings")),
        sa.UniqueConstraint(
            "backend_id", "period", "number",
            name=op.f("uq_idle_bookings_backend_id_period_number"),
        ),
    )  # fmt: skip
    if is_postgresql:
        op.execute(
            "CREATE TRIGGER idle_bookings_stay BEFORE UPDATE OR DELETE OR TRUNCATE"
            " ON idle_bookings FOR EACH STATEMENT EXECUTE FUNCTION booked_stays()"
        )
        return
    for word, event in (("stay", "UPDATE"), ("remain", "DELETE")):
        op.execute(
            f"CREATE TRIGGER idle_bookings_{word} BEFORE {event} ON idle_bookings"
            f" BEGIN SELECT RAISE(ABORT, '{_WORDS}'); END"
        )
