"""Fixtures every test may use: real stores, started once a run, empty for each test; and the
figures that a run shows at its end.
"""

import gc
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from tests import schema, servers

_FIGURE = "figure"

# A busy machine is no fault of what a property is about.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """Thousands of tests are there to stay: looked through again and again for what could be let
    go, they cost a tenth of the run.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 5)


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Says what a test measured; the run's summary shows it."""
    return lambda text: record_property(_FIGURE, text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """From the reports, which come from wherever a test ran."""
    lines = []
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        properties = getattr(report, "user_properties", ())
        said = [value for name, value in properties if name == _FIGURE]
        if said and getattr(report, "when", "") == "call":
            lines.append(f"{report.nodeid}:")
            lines += [f"  {line}" for text in said for line in str(text).splitlines()]
    if lines:
        terminalreporter.section("figures")
        terminalreporter.write("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def store_server_url() -> Iterator[str]:
    """One Valkey for the whole run; tests sharing it must use tags of their own or `store_url`."""
    with servers.valkey() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server_url() -> Iterator[str | None]:
    """One Redis from PATH for the whole run, or None."""
    with servers.redis_server() as url:
        yield url


@pytest.fixture
def store_url(store_server_url: str) -> str:
    """The URL of an empty Valkey."""
    return _emptied(store_server_url)


@pytest.fixture(params=["valkey", "redis"])
def any_store_url(request: pytest.FixtureRequest) -> str:
    """The same test on Valkey and, where PATH has one, on Redis."""
    if request.param == "valkey":
        return _emptied(request.getfixturevalue("store_server_url"))
    url = request.getfixturevalue("redis_server_url")
    if url is None:
        pytest.skip("no redis-server on PATH")
    return _emptied(url)


def _emptied(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        client.flushall()
    servers.make_whole(url)
    return url


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    with servers.postgres() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_tables(postgres_server_url: str) -> Iterator[str]:
    with schema.postgres_template(postgres_server_url) as name:
        yield name


@pytest.fixture
def postgres_url(postgres_server_url: str, postgres_tables: str) -> Iterator[str]:
    """The SQLAlchemy URL of a fresh PostgreSQL database, with empty tables."""
    with servers.fresh_database(postgres_server_url, postgres_tables) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The SQLAlchemy URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The same test on SQLite and on PostgreSQL."""
    return str(request.getfixturevalue(f"{request.param}_url"))
