"""On SQLite a posting is kept under its key alone, not under a number with an index from the key to
it: there are four for each request, and each was written to two trees.

What is there is copied, in the order of its keys. Triggers belong to their table, so they are made
again, as 0023 and 0029 have them; there is no number any more by which one could be replaced.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0044"
down_revision: Final = "0043"
branch_labels: Final = None
depends_on: Final = None

_COLUMNS: Final = "event_id, kind, account, tenant_id, amount_picos, currency, at_us"
_WORDS: Final = "what is booked never changes; corrections are rows of their own"
_SAME: Final = (
    "EXISTS (SELECT 1 FROM postings"
    " WHERE event_id = NEW.event_id AND kind = NEW.kind AND account = NEW.account)"
)


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    op.create_table(
        "postings_by_key",
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("amount_picos", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", "kind", "account", name="pk_postings"),
        sqlite_with_rowid=False,
    )
    op.execute(
        f"INSERT INTO postings_by_key ({_COLUMNS})"  # noqa: S608 - our own words
        f" SELECT {_COLUMNS} FROM postings ORDER BY event_id, kind, account"
    )
    op.drop_table("postings")
    op.rename_table("postings_by_key", "postings")
    _refuse("postings_stay", "UPDATE")
    _refuse("postings_remain", "DELETE")
    _refuse("postings_are_not_replaced", "INSERT", f" WHEN {_SAME}")


def _refuse(name: str, what: str, when: str = "") -> None:
    op.execute(
        f"CREATE TRIGGER {name} BEFORE {what} ON postings{when}"
        f" BEGIN SELECT RAISE(ABORT, '{_WORDS}'); END"
    )
