"""The launchers themselves: what the other tests stand on."""

import redis
import sqlalchemy

from tests import servers


def test_every_store_answers_and_begins_empty(any_store_url: str) -> None:
    with redis.Redis.from_url(any_store_url) as client:
        assert client.ping()
        assert client.keys("*") == [b"mh:{s00}:epoch"]  # which says that this is all


def test_every_database_begins_empty(database_url: str) -> None:
    engine = sqlalchemy.create_engine(database_url)
    assert sqlalchemy.inspect(engine).get_table_names() == []
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
