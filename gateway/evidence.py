"""Checks what the database keeps as evidence, without any other part of Meterhouse running."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from gateway.finding import Finding
from gateway.settings import Settings
from gateway.stores.sql import audit
from gateway.stores.sql.audit import Head
from gateway.stores.sql.engine import open_engine

_REMEDY: Final = (
    "keep a copy of the database as it is now; whoever owns it changed the chain by hand"
)


def audit_chain(settings: Settings, anchor: Head | None) -> Iterator[Finding]:
    """Whether the audit chain holds from its first row to its head, and against the anchor."""
    sqlite = settings.database_url.removeprefix("sqlite:///")
    if sqlite != settings.database_url and not Path(sqlite).exists():
        yield Finding("audit", "ok", f"there is no {sqlite} yet, and nothing was changed in it")
        return
    opened = open_engine(settings.database_url)
    try:
        found = audit.verify(opened, anchor)
    except SQLAlchemyError as error:
        reason = str(error).partition("\n")[0]
        yield Finding("audit", "failed", reason, "check METERHOUSE_DATABASE_URL")
        return
    finally:
        opened.dispose()
    if found.broken_at is not None:
        said = f"broken at row {found.broken_at}: {found.reason}; {found.checked} rows hold"
        yield Finding("audit", "failed", said, _REMEDY)
        return
    against = "" if anchor is None else f", and holds against the anchor {anchor.seq}"
    said = f"{found.checked} rows hold{against}; head {found.head.seq}:{found.head.hash}"
    yield Finding("audit", "ok", said, "keep the head elsewhere, and give it as --anchor next time")
