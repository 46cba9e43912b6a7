"""Approved prices and discounts stay as they are, whoever writes to the database.

What is not in force yet may be withdrawn, and such a discount may be changed. The triggers belong
to the tables: a later revision that rebuilds one has to make them again.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0042"
down_revision: Final = "0041"
branch_labels: Final = None
depends_on: Final = None

_TABLES: Final = {
    "prices": (
        "id", "book", "model", "tenant_id", "backend_id", "upstream_model", "meter",
        "amount_per_million", "currency", "context_tiers", "quantity_tiers", "effective_from_us",
        "state", "service_tier",
    ),
    "discounts": (
        "id", "tenant_id", "percent", "model", "meter", "effective_from_us", "state",
    ),
}  # fmt: skip
_WORDS: Final = "what is approved and in force never changes; a later one takes its place"


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    make = _postgres if postgres else _sqlite
    for table, columns in _TABLES.items():
        # A price is approved for good; a discount until it is in force may be another.
        changes = "" if table == "prices" else " AND {in_force}"
        for statement in make(table, columns, changes):
            op.execute(sa.text(statement))


def _sqlite(table: str, columns: tuple[str, ...], changes: str) -> list[str]:
    in_force = "OLD.effective_from_us <= CAST(strftime('%s', 'now') AS INTEGER) * 1000000"
    differs = " OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in columns)
    stays = f"OLD.state = 'approved'{changes.format(in_force=in_force)} AND ({differs})"
    gone = f"OLD.state = 'approved' AND {in_force}"
    abort = f"BEGIN SELECT RAISE(ABORT, '{_WORDS}'); END"
    return [
        f"CREATE TRIGGER {table}_stay BEFORE UPDATE ON {table} WHEN {stays} {abort}",
        f"CREATE TRIGGER {table}_remain BEFORE DELETE ON {table} WHEN {gone} {abort}",
    ]


def _postgres(table: str, columns: tuple[str, ...], changes: str) -> list[str]:
    now_us = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    in_force = f"OLD.effective_from_us <= {now_us}"
    old, new = (", ".join(f"{row}.{name}" for name in columns) for row in ("OLD", "NEW"))
    differs = f"({old}) IS DISTINCT FROM ({new})"
    stays = f"OLD.state = 'approved'{changes.format(in_force=in_force)} AND {differs}"
    return [
        f"""CREATE FUNCTION {table}_in_force_stay() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION '{_WORDS}'; END $$""",
        f"""CREATE TRIGGER {table}_stay BEFORE UPDATE ON {table} FOR EACH ROW
    WHEN ({stays}) EXECUTE FUNCTION {table}_in_force_stay()""",
        f"""CREATE TRIGGER {table}_remain BEFORE DELETE ON {table} FOR EACH ROW
    WHEN (OLD.state = 'approved' AND {in_force}) EXECUTE FUNCTION {table}_in_force_stay()""",
        f"""CREATE TRIGGER {table}_whole BEFORE TRUNCATE ON {table} FOR EACH STATEMENT
    EXECUTE FUNCTION {table}_in_force_stay()""",
    ]
