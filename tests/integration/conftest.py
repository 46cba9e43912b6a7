"""Fixtures of the admin API: real servers over real stores."""

from collections.abc import Iterator

import httpx
import pytest

from tests import servers
from tests.admin_server import AdminServer, Made, admin_server


@pytest.fixture(scope="module")
def sqlite_house_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('admin') / 'a.db'}"


@pytest.fixture(scope="module")
def postgres_house_url(postgres_server_url: str, postgres_tables: str) -> Iterator[str]:
    with servers.fresh_database(postgres_server_url, postgres_tables) as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def admin_house(request: pytest.FixtureRequest) -> Iterator[AdminServer]:
    """One admin server a module, on each database. Tests share it: they make their own objects."""
    with admin_server(request.getfixturevalue(f"{request.param}_house_url")) as server:
        yield server


@pytest.fixture
def admin_client(admin_house: AdminServer) -> Iterator[httpx.Client]:
    with admin_house.client() as client:
        yield client


@pytest.fixture
def made(admin_client: httpx.Client) -> Made:
    return Made(admin_client)
