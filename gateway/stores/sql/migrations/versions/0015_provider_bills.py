"""Bills of providers, to be held against what was metered. What was imported stays as it is."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0015"
down_revision: Final = "0014"
branch_labels: Final = None
depends_on: Final = None

_TABLES: Final = ("provider_bills", "provider_bill_lines")


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    picos = sa.Numeric(38, 0) if postgres else sa.BigInteger()
    op.create_table(
        "provider_bills",
        *(sa.Column(each, sa.Text(), nullable=False) for each in ("id", "name", "backend_ids")),
        *(sa.Column(each, sa.Text(), nullable=False) for each in ("period", "currency")),
        sa.Column("decimals", sa.Integer(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("total_picos", picos, nullable=False),
        *(sa.Column(each, sa.Text(), nullable=False) for each in ("sha256", "imported_by")),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider_bills")),
    )
    op.create_table(
        "provider_bill_lines",
        *(sa.Column(each, sa.Text(), nullable=False) for each in ("bill_id", "day", "model")),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("amount_picos", picos, nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("repeated_quantity", sa.BigInteger(), nullable=False),
        sa.Column("repeated_picos", picos, nullable=False),
        sa.ForeignKeyConstraint(
            ["bill_id"], ["provider_bills.id"], name=op.f("fk_provider_bill_lines_bill_id")
        ),
        sa.PrimaryKeyConstraint(
            "bill_id", "day", "model", "meter", name=op.f("pk_provider_bill_lines")
        ),
    )
    for statement in _postgres() if postgres else _sqlite():
        op.execute(statement)


def _sqlite() -> list[str]:
    return [
        f"""CREATE TRIGGER {table}_{word} BEFORE {event} ON {table}
    BEGIN SELECT RAISE(ABORT, 'an imported bill stays as it is'); END"""
        for table in _TABLES
        for word, event in (("stay", "UPDATE"), ("remain", "DELETE"))
    ]


def _postgres() -> list[str]:
    return [
        """CREATE FUNCTION provider_bills_stay() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'an imported bill stays as it is'; END $$""",
        *(
            f"""CREATE TRIGGER {table}_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION provider_bills_stay()"""
            for table in _TABLES
        ),
    ]
