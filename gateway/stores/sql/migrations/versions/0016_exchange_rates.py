"""Invoices in another currency than the ledger: rates that never change, kept with what is issued.

The trigger that keeps what is issued names its columns on SQLite, so it is made again.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0016"
down_revision: Final = "0015"
branch_labels: Final = None
depends_on: Final = None

_STAYS: Final = (
    "id", "tenant_id", "period", "number", "currency", "period_start_us", "period_end_us",
    "total_minor", "created_at_us", "kind", "credits_invoice", "early", "drafted_by", "reason",
    "issued_at_us", "terms", "content_sha256", "exchange",
)  # fmt: skip
_SAME: Final = " AND ".join(f"NEW.{name} IS OLD.{name}" for name in _STAYS)
_SQLITE: Final = (
    "DROP TRIGGER invoices_stay",
    f"""CREATE TRIGGER invoices_stay BEFORE UPDATE ON invoices
    WHEN OLD.status != 'draft'
        AND NOT (OLD.status = 'issued' AND NEW.status = 'voided' AND {_SAME})
    BEGIN SELECT RAISE(ABORT, 'what is issued never changes; it can be voided'); END""",
    """CREATE TRIGGER exchange_rates_stay BEFORE UPDATE ON exchange_rates
    BEGIN SELECT RAISE(ABORT, 'a rate never changes; enter another one'); END""",
    """CREATE TRIGGER exchange_rates_remain BEFORE DELETE ON exchange_rates
    BEGIN SELECT RAISE(ABORT, 'a rate never goes; enter another one'); END""",
    """CREATE TRIGGER exchange_rates_are_new BEFORE INSERT ON exchange_rates
    WHEN EXISTS (SELECT 1 FROM exchange_rates WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'a rate never changes; enter another one'); END""",
)
_POSTGRES: Final = (
    """CREATE FUNCTION exchange_rate_stays() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'a rate never changes; enter another one'; END $$""",
    """CREATE TRIGGER exchange_rates_stay BEFORE UPDATE OR DELETE ON exchange_rates
    FOR EACH ROW EXECUTE FUNCTION exchange_rate_stays()""",
    """CREATE TRIGGER exchange_rates_remain BEFORE TRUNCATE ON exchange_rates
    FOR EACH STATEMENT EXECUTE FUNCTION exchange_rate_stays()""",
)


def upgrade() -> None:
    op.add_column("invoices", sa.Column("exchange", sa.Text(), nullable=True))
    names = ("base", "quote", "rate", "day", "source")
    op.create_table(
        "exchange_rates",
        sa.Column("id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in names),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exchange_rates")),
    )
    op.create_index("ix_exchange_rates_base_quote_day", "exchange_rates", ["base", "quote", "day"])
    dialect = op.get_bind().dialect.name
    for statement in _POSTGRES if dialect == "postgresql" else _SQLITE:
        op.execute(statement)
