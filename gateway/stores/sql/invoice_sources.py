"""What of an invoice is sealed when it is issued and when it is voided: its head, and digests of
its lines and of the usage that it covers, with every column.

A digest is the SHA-256 of the rows in the order of their positions, each as a line of JSON. A
column that comes later makes another format; what was sealed before is read without it.
"""

import hashlib
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Table, or_, select

from gateway.stores.sql.invoice_tables import invoice_lines, invoice_usage
from gateway.stores.sql.journal_origin import VOIDED

FORMAT: Final = 3
_BEFORE_COMMITMENTS: Final = 2  # lines had none of theirs
_FIRST: Final = 1
EARLIER: Final = (_BEFORE_COMMITMENTS, _FIRST)
HEAD: Final = (
    "id", "tenant_id", "period", "number", "currency", "period_start_us", "period_end_us",
    "total_minor", "created_at_us", "kind", "credits_invoice", "early", "drafted_by", "reason",
    "issued_at_us", "terms", "content_sha256", "exchange",
)  # fmt: skip
OF_A_VOID: Final = ("voided_at_us", "void_reason", "version")
LINES: Final = (
    "position", "line_id", "cost_center", "team", "key", "model", "backend_region", "meter",
    "quantity", "unit", "picos_per_token", "price_version", "amount_picos", "period_start_us",
    "period_end_us", "provenance", "line_kind", "corrects_invoice", "amount_minor", "credits_line",
    "list_picos_per_token", "commitment", "commitment_picos", "commitment_paid",
)  # fmt: skip
_LINES_BEFORE: Final = LINES[:-3]
USAGE: Final = (
    "position", "period_start_us", "period_end_us", "team_id", "key_id", "cost_center", "team",
    "key", "model", "region", "provenance", "charge_card", "input_tokens", "cache_read_tokens",
    "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens", "charge_picos",
)  # fmt: skip
_AT_ONCE: Final = 1_000
_ENCODER: Final = msgspec.json.Encoder()


def source_of(
    connection: Connection, invoice: Any, entry_id: str, version: int = FORMAT
) -> tuple[Any, ...]:
    """Of one as it is kept now; memory does not grow with its lines. In an earlier format as well,
    which nothing is that has a commitment.
    """
    if version == _FIRST:
        return _first_source_of(invoice, entry_id)
    names = HEAD + OF_A_VOID if entry_id.endswith(VOIDED) else HEAD
    head = tuple(getattr(invoice, name) for name in names)
    before = version == _BEFORE_COMMITMENTS and not _has_commitments(connection, invoice.id)
    lines = _digest(connection, invoice_lines, _LINES_BEFORE if before else LINES, invoice.id)
    return (entry_id, *head, lines, _digest(connection, invoice_usage, USAGE, invoice.id))


def _has_commitments(connection: Connection, invoice_id: str) -> bool:
    """Whether its lines say something in columns that the format before did not seal."""
    of = invoice_lines.c
    said = or_(*(of[name].is_not(None) for name in LINES[-3:]))
    query = select(invoice_lines).where(of.invoice_id == invoice_id, said)
    return bool(connection.scalar(select(query.exists())))


def _first_source_of(invoice: Any, entry_id: str) -> tuple[Any, ...]:
    """The same in the first format, which left the lines to the digest of lines.csv."""
    return (
        entry_id,
        invoice.tenant_id,
        invoice.number,
        invoice.kind,
        invoice.currency,
        invoice.total_minor,
        invoice.issued_at_us,
        invoice.content_sha256,
    )


def _digest(connection: Connection, table: Table, names: tuple[str, ...], invoice_id: str) -> str:
    of, hashed = table.c, hashlib.sha256()
    query = select(*(of[name] for name in names)).where(of.invoice_id == invoice_id)
    found = connection.execute(
        query.order_by(of.position), execution_options={"yield_per": _AT_ONCE}
    )
    for row in found:
        hashed.update(_ENCODER.encode(tuple(row)) + b"\n")
    return hashed.hexdigest()
