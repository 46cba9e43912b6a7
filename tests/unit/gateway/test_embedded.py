import subprocess
from pathlib import Path

import pytest
import redis

from gateway import embedded
from gateway.settings import Settings, StartError, socket_path
from tests.running import run


def started(settings: Settings) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(embedded.command(settings), stdout=subprocess.DEVNULL)
    assert run(embedded.until_ready(socket_path(settings.home), 10))
    return process


def test_the_store_keeps_its_data_over_a_kill_and_opens_no_port(tmp_path: Path) -> None:
    settings = Settings.from_env({"METERHOUSE_HOME": str(tmp_path)})
    first = started(settings)
    client = redis.Redis.from_url(settings.redis_url)
    client.set("kept", "yes")
    client.config_set("appendfsync", "always")
    client.set("flushed", "yes")
    assert client.config_get("port") == {"port": "0"}
    client.close()
    first.kill()
    first.wait()

    second = started(settings)
    client = redis.Redis.from_url(settings.redis_url)

    assert client.get("kept") == client.get("flushed") == b"yes"
    client.close()
    second.terminate()
    assert second.wait(10) == 0


def test_nobody_answers_where_no_store_runs(tmp_path: Path) -> None:
    assert not run(embedded.until_ready(tmp_path / "store.sock", 0.1))


def test_a_socket_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    settings = Settings.from_env({"METERHOUSE_HOME": str(tmp_path)})
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)

    with pytest.raises(StartError, match="chmod 700"):
        embedded.command(settings)
