"""The ledger's chains, and triggers that keep what is booked as it is.

The triggers belong to the tables: a later revision that rebuilds one (as SQLite's batch mode does)
has to make them again.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0023"
down_revision: Final = "0022"
branch_labels: Final = None
depends_on: Final = None

_FROZEN: Final = ("usage_rows", "postings", "rate_cards", "journal_blocks", "journal_start")
_WORDS: Final = "what is booked never changes; corrections are rows of their own"


def upgrade() -> None:
    op.create_table(
        "journal_chains",
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain", name=op.f("pk_journal_chains")),
    )
    op.create_table(
        "journal_blocks",
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("previous", sa.LargeBinary(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("sealed_at_us", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("entries", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain", "number", name=op.f("pk_journal_blocks")),
    )
    op.create_table(
        "journal_start",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("usage_rows", sa.BigInteger(), nullable=False),
        sa.Column("postings", sa.BigInteger(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal_start")),
    )
    postgres = op.get_bind().dialect.name == "postgresql"
    now = (
        "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        if postgres
        else "CAST(strftime('%s', 'now') AS INTEGER) * 1000000"
    )
    op.execute(
        "INSERT INTO journal_start (id, usage_rows, postings, at_us) SELECT 1,"  # noqa: S608 - our own words
        f" (SELECT count(*) FROM usage_rows), (SELECT count(*) FROM postings), {now}"
    )
    for statement in _postgres() if postgres else _sqlite():
        op.execute(statement)


def _sqlite() -> list[str]:
    return [
        f"CREATE TRIGGER {table}_{word} BEFORE {event} ON {table}"
        f" BEGIN SELECT RAISE(ABORT, '{_WORDS}'); END"
        for table in _FROZEN
        for word, event in (("stay", "UPDATE"), ("remain", "DELETE"))
    ]


def _postgres() -> list[str]:
    return [
        f"""CREATE FUNCTION booked_stays() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION '{_WORDS}'; END $$""",
        *(
            f"""CREATE TRIGGER {table}_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION booked_stays()"""
            for table in _FROZEN
        ),
    ]
