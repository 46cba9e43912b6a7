"""The audit chain: rows that only ever come after the last one.

The triggers belong to the tables: a later revision that rebuilds one (as SQLite's batch mode does)
has to make them again.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0008"
down_revision: Final = "0007"
branch_labels: Final = None
depends_on: Final = None

_TEXTS: Final = ("actor_id", "actor_name", "role", "operation", "noun", "object_id")
_MAYBE: Final = ("tenant_id", "team_id", "before", "after")
_LAST: Final = ("address", "request_id", "prev_hash", "hash")

_SQLITE: Final = (
    """CREATE TRIGGER audit_rows_stay BEFORE UPDATE ON audit_rows
    BEGIN SELECT RAISE(ABORT, 'audit rows never change'); END""",
    """CREATE TRIGGER audit_rows_remain BEFORE DELETE ON audit_rows
    BEGIN SELECT RAISE(ABORT, 'audit rows never go'); END""",
    # INSERT OR REPLACE deletes without a word; this one is asked before it does.
    """CREATE TRIGGER audit_rows_follow BEFORE INSERT ON audit_rows
    WHEN NEW.seq != (SELECT seq FROM audit_head) + 1
    BEGIN SELECT RAISE(ABORT, 'an audit row follows the last one'); END""",
    """CREATE TRIGGER audit_head_advances BEFORE UPDATE ON audit_head
    WHEN NEW.id != OLD.id OR NEW.seq != OLD.seq + 1
    BEGIN SELECT RAISE(ABORT, 'the head of the audit chain advances by one'); END""",
    """CREATE TRIGGER audit_head_remains BEFORE DELETE ON audit_head
    BEGIN SELECT RAISE(ABORT, 'the head of the audit chain stays'); END""",
    """CREATE TRIGGER audit_head_is_one BEFORE INSERT ON audit_head
    BEGIN SELECT RAISE(ABORT, 'the audit chain has one head'); END""",
)
_POSTGRES: Final = (
    """CREATE FUNCTION audit_refuses() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'the audit chain only grows'; END $$""",
    """CREATE FUNCTION audit_row_follows() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.seq <> (SELECT seq FROM audit_head) + 1 THEN
            RAISE EXCEPTION 'an audit row follows the last one';
        END IF;
        RETURN NEW;
    END $$""",
    """CREATE FUNCTION audit_head_advances() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.id <> OLD.id OR NEW.seq <> OLD.seq + 1 THEN
            RAISE EXCEPTION 'the head of the audit chain advances by one';
        END IF;
        RETURN NEW;
    END $$""",
    """CREATE TRIGGER audit_rows_stay BEFORE UPDATE OR DELETE ON audit_rows
    FOR EACH ROW EXECUTE FUNCTION audit_refuses()""",
    """CREATE TRIGGER audit_rows_remain BEFORE TRUNCATE ON audit_rows
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses()""",
    """CREATE TRIGGER audit_rows_follow BEFORE INSERT ON audit_rows
    FOR EACH ROW EXECUTE FUNCTION audit_row_follows()""",
    """CREATE TRIGGER audit_head_advances BEFORE UPDATE ON audit_head
    FOR EACH ROW EXECUTE FUNCTION audit_head_advances()""",
    """CREATE TRIGGER audit_head_remains BEFORE INSERT OR DELETE ON audit_head
    FOR EACH ROW EXECUTE FUNCTION audit_refuses()""",
    """CREATE TRIGGER audit_head_is_kept BEFORE TRUNCATE ON audit_head
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses()""",
)


def upgrade() -> None:
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
    )
    op.execute(f"INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, '{'0' * 64}')")  # noqa: S608 - zeros
    op.create_table(
        "audit_rows",
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in _TEXTS),
        *(sa.Column(name, sa.Text(), nullable=True) for name in _MAYBE),
        *(sa.Column(name, sa.Text(), nullable=False) for name in _LAST),
        sa.PrimaryKeyConstraint("id", name="pk_audit_rows"),
        sa.UniqueConstraint("seq", name="uq_audit_rows_seq"),
    )
    op.create_index("ix_audit_rows_object_id", "audit_rows", ["object_id"])
    op.create_index("ix_audit_rows_tenant_id", "audit_rows", ["tenant_id"])
    dialect = op.get_bind().dialect.name
    for statement in _POSTGRES if dialect == "postgresql" else _SQLITE:
        op.execute(statement)
