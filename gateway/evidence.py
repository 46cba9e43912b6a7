"""Checks what the database keeps as evidence, without any other part of Meterhouse running."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from gateway.finding import Finding
from gateway.settings import Settings
from gateway.stores.sql import audit, books, decisions, journal
from gateway.stores.sql.audit import Head
from gateway.stores.sql.decisions import Anchor
from gateway.stores.sql.engine import open_engine, reading

_REMEDY: Final = (
    "keep a copy of the database as it is now; somebody who may write to it changed it by hand"
)

_KEEP: Final = "keep the heads elsewhere, and give them as --ledger-anchor next time"


def audit_chain(settings: Settings, anchor: Head | None) -> Iterator[Finding]:
    """Whether the audit chain holds from its first row to its head, and against the anchor."""

    def look(engine: Engine) -> Finding:
        found = audit.verify(engine, anchor)
        if found.broken_at is not None:
            said = f"broken at row {found.broken_at}: {found.reason}; {found.checked} rows hold"
            return Finding("audit", "failed", said, _REMEDY)
        against = "" if anchor is None else f", and holds against the anchor {anchor.seq}"
        said = f"{found.checked} rows hold{against}; head {found.head.seq}:{found.head.hash}"
        return Finding(
            "audit", "ok", said, "keep the head elsewhere, and give it as --anchor next time"
        )

    yield _looked(settings, "audit", look)


def decision_chains(settings: Settings, anchors: Sequence[Anchor]) -> Iterator[Finding]:
    """Whether every chain of decisions holds from its first block to its head."""

    def look(engine: Engine) -> Finding:
        found = decisions.verify(engine, anchors)
        if found.fault is not None:
            said = f"chain {found.fault.chain}, block {found.fault.number}: {found.fault.fault}"
            return Finding("decisions", "failed", said, _REMEDY)
        heads = " ".join(f"{b.chain}:{b.number}:{b.hash.hex()}" for b in found.chains)
        over = f" ({found.retired} by their hashes: their time is over)" if found.retired else ""
        said = f"{found.records} decisions in {found.blocks} blocks hold{over}; heads"
        remedy = "keep the heads elsewhere, and give them as --decisions-anchor next time"
        return Finding("decisions", "ok", f"{said} {heads or 'none'}", remedy)

    yield _looked(settings, "decisions", look)


def ledger_books(settings: Settings, anchors: Sequence[journal.Anchor] = ()) -> Iterator[Finding]:
    """Whether rollups, postings, invoices and their numbers are what the usage rows make them, and
    whether every sealed entry is what was sealed.
    """

    def look(engine: Engine) -> Finding:
        with reading(engine) as connection:
            found = books.check(connection, anchors)
        if found.faults:
            more = f" (and {len(found.faults) - 1} more)" if found.faults[1:] else ""
            rebuild = all(fault.startswith("the rollup of ") for fault in found.faults)
            remedy = f"{_REMEDY}; then run meterhouse rollups --rebuild" if rebuild else _REMEDY
            return Finding("ledger", "failed", f"{found.faults[0]}{more}", remedy)
        heads = " ".join(f"{b.chain}:{b.number}:{b.hash.hex()}" for b in found.heads)
        said = (
            f"{found.usage_rows} usage rows and {found.invoices} invoices agree with all else, "
            f"{found.entries} sealed entries hold; heads {heads or 'none'}"
        )
        return Finding("ledger", "ok", said, _KEEP)

    yield _looked(settings, "ledger", look)


def _looked(settings: Settings, part: str, look: Callable[[Engine], Finding]) -> Finding:
    sqlite = settings.database_url.removeprefix("sqlite:///")
    if sqlite != settings.database_url and not Path(sqlite).exists():
        return Finding(part, "ok", f"there is no {sqlite} yet, and nothing to be checked in it")
    opened = open_engine(settings.database_url)
    try:
        return look(opened)
    except SQLAlchemyError as error:
        reason = str(error).partition("\n")[0]
        return Finding(part, "failed", reason, "check METERHOUSE_DATABASE_URL")
    finally:
        opened.dispose()
