"""The launchers themselves: what the other tests stand on."""

import redis
import sqlalchemy

from tests import schema, servers


def test_every_store_answers_and_begins_empty(any_store_url: str) -> None:
    with redis.Redis.from_url(any_store_url) as client:
        assert client.ping()
        assert client.keys("*") == [b"mh:{s00}:epoch"]  # which says that this is all


def test_a_database_of_ones_own_begins_empty(postgres_server_url: str) -> None:
    with servers.fresh_database(postgres_server_url) as url:
        assert _counted(sqlalchemy.create_engine(url)) == {}


def test_every_database_with_tables_begins_without_a_tenant(database_url: str) -> None:
    found = _counted(schema.with_tables(database_url))
    assert found.keys() >= {"tenants", "usage_rows"}
    assert (found["tenants"], found["usage_rows"]) == (0, 0)


def _counted(engine: sqlalchemy.Engine) -> dict[str, int]:
    """How many rows each table has."""
    try:
        names = sqlalchemy.inspect(engine).get_table_names()
        with engine.connect() as connection:
            return {
                name: connection.scalar(
                    sqlalchemy.select(sqlalchemy.func.count()).select_from(sqlalchemy.table(name))
                )
                or 0
                for name in names
            }
    finally:
        engine.dispose()


def test_a_killed_store_starts_again_on_its_data() -> None:
    with servers.store_server(
        servers.valkey_binary(), appendonly="yes", appendfsync="always"
    ) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "yes")
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("kept") == b"yes"
