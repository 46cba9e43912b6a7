"""Databases that have their tables: what the migrations make is made once a process, and copied."""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from sqlalchemy import Engine, make_url

from gateway.stores.sql.engine import migrate, open_engine
from tests import servers


def with_tables(database_url: str) -> Engine:
    """An engine on the newest schema; a SQLite file that does not exist yet is a copy."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        shutil.copy(_sqlite(), url.database)
    engine = open_engine(database_url)
    migrate(engine)
    return engine


@cache
def _sqlite() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="mh-schema-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    path = directory / "tables.sqlite"
    engine = open_engine(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


@contextmanager
def postgres_template(server_url: str) -> Iterator[str]:
    """The name of a database on that server which others can be made after."""
    with servers.fresh_database(server_url) as url:
        engine = open_engine(url)
        migrate(engine)
        engine.dispose()
        yield str(make_url(url).database)
