"""A commitment that invoices were issued by stays as it is, whoever writes to the database; and no
approved price or discount is replaced by a row of its id, which SQLite does past their triggers.

What was voided again is no reason. The triggers belong to the tables: a later revision that
rebuilds one has to make them again.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0043"
down_revision: Final = "0042"
branch_labels: Final = None
depends_on: Final = None

_COLUMNS: Final = (
    "id", "tenant_id", "amount", "term", "first_day", "last_day", "prepaid", "overage_percent",
    "rollover_percent", "state",
)  # fmt: skip
_BILLED: Final = """EXISTS (
    SELECT 1 FROM invoice_lines JOIN invoices ON invoices.id = invoice_lines.invoice_id
    WHERE invoices.status = 'issued' AND invoice_lines.commitment IS NOT NULL
        AND substr(invoice_lines.commitment, 1, length({row}.id) + 1) = {row}.id || '/'
)"""
_THERE: Final = "EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id AND state = 'approved')"
_WORDS: Final = "invoices were issued by the commitment, and it never changes"
_APPROVED: Final = "what is approved and in force never changes; a later one takes its place"


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in _postgres() if postgres else _sqlite():
        op.execute(sa.text(statement))


def _sqlite() -> list[str]:
    differs = " OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in _COLUMNS)
    billed = {row: _BILLED.format(row=row) for row in ("OLD", "NEW")}
    return [
        _refusing("commitments_stay", "UPDATE", "commitments", f"({differs}) AND {billed['OLD']}"),
        _refusing("commitments_remain", "DELETE", "commitments", billed["OLD"]),
        _refusing("commitments_are_not_replaced", "INSERT", "commitments", billed["NEW"]),
        _refusing(
            "commitments_keep_their_ids",
            "UPDATE OF id",
            "commitments",
            f"OLD.id IS NOT NEW.id AND {billed['NEW']}",
        ),
        *(each for table in ("prices", "discounts") for each in _not_replaced(table)),
    ]


def _not_replaced(table: str) -> list[str]:
    there = _THERE.format(table=table)
    return [
        _refusing(f"{table}_are_not_replaced", "INSERT", table, there, _APPROVED),
        _refusing(
            f"{table}_keep_their_ids",
            "UPDATE OF id",
            table,
            f"OLD.id IS NOT NEW.id AND {there}",
            _APPROVED,
        ),
    ]


def _refusing(name: str, what: str, table: str, when: str, words: str = _WORDS) -> str:
    abort = f"BEGIN SELECT RAISE(ABORT, '{words}'); END"
    return f"CREATE TRIGGER {name} BEFORE {what} ON {table} WHEN {when} {abort}"


def _postgres() -> list[str]:
    old, new = (", ".join(f"{row}.{name}" for name in _COLUMNS) for row in ("OLD", "NEW"))
    return [
        f"""CREATE FUNCTION commitments_stay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF {_BILLED.format(row="OLD")} THEN RAISE EXCEPTION '{_WORDS}'; END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END $$""",
        f"""CREATE TRIGGER commitments_stay BEFORE UPDATE ON commitments FOR EACH ROW
    WHEN (({old}) IS DISTINCT FROM ({new})) EXECUTE FUNCTION commitments_stay()""",
        """CREATE TRIGGER commitments_remain BEFORE DELETE ON commitments FOR EACH ROW
    EXECUTE FUNCTION commitments_stay()""",
        """CREATE FUNCTION commitments_remain() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT 1 FROM commitments) THEN
        RAISE EXCEPTION 'what tenants committed to never changes that way';
    END IF;
    RETURN NULL;
END $$""",
        """CREATE TRIGGER commitments_whole BEFORE TRUNCATE ON commitments FOR EACH STATEMENT
    EXECUTE FUNCTION commitments_remain()""",
    ]
