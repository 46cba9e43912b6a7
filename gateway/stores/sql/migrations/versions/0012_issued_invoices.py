"""Invoices that are issued, credited and voided; what is issued stays as it is.

The triggers belong to the tables: a later revision that rebuilds one (as SQLite's batch mode does)
has to make them again.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0012"
down_revision: Final = "0011"
branch_labels: Final = None
depends_on: Final = None

_STAYS: Final = (
    "id", "tenant_id", "period", "number", "currency", "period_start_us", "period_end_us",
    "total_minor", "created_at_us", "kind", "credits_invoice", "early", "drafted_by", "reason",
    "issued_at_us", "terms", "content_sha256",
)  # fmt: skip
_SAME: Final = " AND ".join(f"NEW.{name} IS OLD.{name}" for name in _STAYS)
_OF_A_DRAFT: Final = "(SELECT status FROM invoices WHERE id = {}.invoice_id) IS 'draft'"
_SQLITE: Final = (
    f"""CREATE TRIGGER invoices_stay BEFORE UPDATE ON invoices
    WHEN OLD.status != 'draft'
        AND NOT (OLD.status = 'issued' AND NEW.status = 'voided' AND {_SAME})
    BEGIN SELECT RAISE(ABORT, 'what is issued never changes; it can be voided'); END""",
    """CREATE TRIGGER invoices_are_issued_whole BEFORE UPDATE ON invoices
    WHEN OLD.status = 'draft' AND NEW.status != 'draft' AND (NEW.status != 'issued'
        OR NEW.number IS NULL OR NEW.issued_at_us IS NULL OR NEW.terms IS NULL
        OR NEW.content_sha256 IS NULL
        OR EXISTS (SELECT 1 FROM invoices WHERE number = NEW.number AND id != NEW.id))
    BEGIN SELECT RAISE(ABORT, 'a draft is issued with a number of its own'); END""",
    """CREATE TRIGGER invoices_remain BEFORE DELETE ON invoices WHEN OLD.status != 'draft'
    BEGIN SELECT RAISE(ABORT, 'what is issued never goes'); END""",
    # INSERT OR REPLACE deletes without a word; this one is asked before it does.
    """CREATE TRIGGER invoices_begin_as_drafts BEFORE INSERT ON invoices
    WHEN NEW.status != 'draft' OR NEW.number IS NOT NULL
        OR EXISTS (SELECT 1 FROM invoices WHERE id = NEW.id AND status != 'draft')
    BEGIN SELECT RAISE(ABORT, 'an invoice begins as a draft'); END""",
)
_FROZEN: Final = ("invoice_lines", "invoice_usage")
_POSTGRES: Final = (
    """CREATE FUNCTION invoice_is_draft(wanted text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT 1 FROM invoices WHERE id = wanted AND status = 'draft') $$""",
    """CREATE FUNCTION invoice_stays() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE may_change text[] := ARRAY['status', 'version', 'voided_at_us', 'void_reason'];
    BEGIN
        IF OLD.status = 'draft' THEN
            IF TG_OP = 'UPDATE' AND NEW.status <> 'draft' AND (NEW.status <> 'issued'
                OR NEW.number IS NULL OR NEW.issued_at_us IS NULL OR NEW.terms IS NULL
                OR NEW.content_sha256 IS NULL) THEN
                RAISE EXCEPTION 'a draft is issued with a number of its own';
            END IF;
        ELSIF TG_OP = 'DELETE' THEN
            RAISE EXCEPTION 'what is issued never goes';
        ELSIF OLD.status <> 'issued' OR NEW.status <> 'voided'
            OR to_jsonb(NEW) - may_change IS DISTINCT FROM to_jsonb(OLD) - may_change THEN
            RAISE EXCEPTION 'what is issued never changes; it can be voided';
        END IF;
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END $$""",
    """CREATE FUNCTION invoice_begins() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.status <> 'draft' OR NEW.number IS NOT NULL THEN
            RAISE EXCEPTION 'an invoice begins as a draft';
        END IF;
        RETURN NEW;
    END $$""",
    """CREATE FUNCTION invoice_part_stays() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (TG_OP <> 'INSERT' AND NOT invoice_is_draft(OLD.invoice_id))
            OR (TG_OP <> 'DELETE' AND NOT invoice_is_draft(NEW.invoice_id)) THEN
            RAISE EXCEPTION 'what is issued never changes';
        END IF;
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END $$""",
    """CREATE FUNCTION invoices_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'what is issued never goes'; END $$""",
    """CREATE TRIGGER invoices_stay BEFORE UPDATE OR DELETE ON invoices
    FOR EACH ROW EXECUTE FUNCTION invoice_stays()""",
    """CREATE TRIGGER invoices_begin_as_drafts BEFORE INSERT ON invoices
    FOR EACH ROW EXECUTE FUNCTION invoice_begins()""",
    *(
        f"""CREATE TRIGGER {table}_stay BEFORE INSERT OR UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION invoice_part_stays()"""
        for table in _FROZEN
    ),
    *(
        f"""CREATE TRIGGER {table}_remain BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION invoices_refuse()"""
        for table in ("invoices", *_FROZEN)
    ),
)


def upgrade() -> None:
    _invoices()
    _usage()
    op.create_table(
        "invoice_series",
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("series", name=op.f("pk_invoice_series")),
    )
    op.create_table(
        "billing_terms",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_billing_terms_tenant_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_billing_terms")),
    )
    op.create_table(
        "team_places",
        sa.Column("team_id", sa.Text(), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=True),
        sa.Column("cost_center", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "until_us", name=op.f("pk_team_places")),
    )
    op.create_index(op.f("ix_team_places_tenant_id"), "team_places", ["tenant_id"])
    dialect = op.get_bind().dialect.name
    for statement in _POSTGRES if dialect == "postgresql" else (*_SQLITE, *_sqlite_parts()):
        op.execute(statement)


def _invoices() -> None:
    for name in ("credits_invoice", "drafted_by", "reason", "void_reason", "terms"):
        op.add_column("invoices", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("invoices", sa.Column("content_sha256", sa.Text(), nullable=True))
    for name in ("issued_at_us", "voided_at_us"):
        op.add_column("invoices", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column(
        "invoices", sa.Column("kind", sa.Text(), nullable=False, server_default="invoice")
    )
    op.add_column(
        "invoices",
        sa.Column("early", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.create_index("ix_invoices_credits_invoice", "invoices", ["credits_invoice"])
    op.add_column(
        "invoice_lines",
        sa.Column("amount_minor", sa.BigInteger(), nullable=False, server_default="0"),
    )
    op.add_column("invoice_lines", sa.Column("credits_line", sa.Text(), nullable=True))


def _usage() -> None:
    picos = sa.Numeric(38, 0) if op.get_bind().dialect.name == "postgresql" else sa.BigInteger()
    texts = ("team_id", "key_id", "cost_center", "team", "key")
    what = ("model", "region", "provenance", "charge_card")
    tokens = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
    op.create_table(
        "invoice_usage",
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("period_start_us", sa.BigInteger(), nullable=False),
        sa.Column("period_end_us", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in (*texts, *what)),
        *(sa.Column(f"{name}_tokens", sa.BigInteger(), nullable=False) for name in tokens),
        sa.Column("charge_picos", picos, nullable=False),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoices.id"], name=op.f("fk_invoice_usage_invoice_id")
        ),
        sa.PrimaryKeyConstraint("invoice_id", "position", name=op.f("pk_invoice_usage")),
    )


def _sqlite_parts() -> list[str]:
    before, after = _OF_A_DRAFT.format("OLD"), _OF_A_DRAFT.format("NEW")
    return [
        f"""CREATE TRIGGER {table}_{word} BEFORE {event} ON {table} WHEN NOT ({condition})
    BEGIN SELECT RAISE(ABORT, 'what is issued never changes'); END"""
        for table in _FROZEN
        for word, event, condition in (
            ("stay", "UPDATE", f"{before} AND {after}"),
            ("remain", "DELETE", before),
            ("begin", "INSERT", after),
        )
    ]
