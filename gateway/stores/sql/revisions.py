"""Which revision the schema needs, and which one a file has: found without what changes schemas.

Standard library only: `up` asks here before it starts a process to migrate, and mostly need not.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

MIGRATIONS: Final = Path(__file__).parent / "migrations"
CURRENT: Final = "SELECT version_num FROM alembic_version"
_SQLITE: Final = "sqlite:///"


def newest() -> str:
    """The revision that this release needs. The files of `migrations/versions` begin with theirs,
    in rising order.
    """
    return max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def known_current(database_url: str) -> bool:
    """Whether this is an SQLite file with the newest schema. False says nothing: migrate then."""
    path = Path(database_url.removeprefix(_SQLITE))
    if not database_url.startswith(_SQLITE) or not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
            found: tuple[str] | None = database.execute(CURRENT).fetchone()
    except sqlite3.Error:
        return False
    return found == (newest(),)
