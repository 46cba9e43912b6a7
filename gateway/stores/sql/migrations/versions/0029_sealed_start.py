"""What there was before the ledger's chains is sealed with them; nothing frozen is replaced.

SQLite's INSERT OR REPLACE takes a row away, by its key or by its rowid, and asks no trigger of
DELETE or UPDATE. PostgreSQL asks those of UPDATE. A trigger belongs to its table: a later revision
that rebuilds one (as SQLite's batch mode does) has to make it again.
"""

from typing import Final

from alembic import op

from gateway.stores.sql.journal_origin import seal_start

revision: Final = "0029"
down_revision: Final = "0028"
branch_labels: Final = None
depends_on: Final = None

_WORDS: Final = "what is booked never changes; corrections are rows of their own"
_KEYS: Final = {
    "usage_rows": ("event_id",),
    "postings": ("event_id", "kind", "account"),
    "rate_cards": ("id",),
    "journal_blocks": ("chain", "number"),
    "provider_bills": ("id",),
    "provider_bill_lines": ("bill_id", "day", "model", "meter"),
    # their own triggers know their keys
    "invoices": (),
    "invoice_lines": (),
    "invoice_usage": (),
    "exchange_rates": (),
}


def upgrade() -> None:
    connection = op.get_bind()
    seal_start(connection)
    if connection.dialect.name == "postgresql":
        op.execute(
            "CREATE TRIGGER journal_start_is_one BEFORE INSERT ON journal_start"
            " FOR EACH STATEMENT EXECUTE FUNCTION booked_stays()"
        )
        return
    for table, keys in _KEYS.items():
        same = [f"SELECT 1 FROM {table} WHERE rowid = NEW.rowid"]  # noqa: S608 - our own words
        if keys:
            equal = " AND ".join(f"{key} = NEW.{key}" for key in keys)
            same.append(f"SELECT 1 FROM {table} WHERE {equal}")  # noqa: S608 - our own words
        _refuse(table, " OR ".join(f"EXISTS ({each})" for each in same))
    _refuse("journal_start", "EXISTS (SELECT 1 FROM journal_start)")


def _refuse(table: str, condition: str) -> None:
    op.execute(
        f"CREATE TRIGGER {table}_are_not_replaced BEFORE INSERT ON {table} WHEN {condition}"
        f" BEGIN SELECT RAISE(ABORT, '{_WORDS}'); END"
    )
