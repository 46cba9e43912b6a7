"""What `doctor` says of a store that is several servers: sound, worn, broken, and asked by a user
without the rights.
"""

from pathlib import Path

import pytest

from gateway.diagnosis_store import store
from gateway.finding import Finding
from gateway.settings import Settings
from gateway.stores.redis.slots import slot_of
from tests import clusters


def looked(home: Path, url: str) -> list[Finding]:
    return list(
        store(Settings.from_env({"METERHOUSE_HOME": str(home), "METERHOUSE_REDIS_URL": url}))
    )


def told(findings: list[Finding], state: str) -> str:
    return "\n".join(f"{one.found} -> {one.remedy}" for one in findings if one.state == state)


def test_a_cluster_is_looked_at_server_by_server_and_tag_by_tag(tmp_path: Path) -> None:
    with clusters.cluster(appendonly="yes") as cluster:
        sound = looked(tmp_path, cluster.url)
        assert [one.state for one in sound] == ["ok"] * 3

        home = cluster.master_of("s07")
        cluster.replica_of(home).kill()
        worn = looked(tmp_path, cluster.url)
        assert told(worn, "failed") == ""
        assert told(worn, "warning").startswith(f"127.0.0.1:{home.port} has no replica")

        for member in cluster.members:
            if member.is_running:
                member.ask("CLUSTER", "DELSLOTS", slot_of("s07"))
        broken = told(looked(tmp_path, cluster.url), "failed")
        assert broken.startswith("no server has the slots of 1 of 64 tags: s07 -> ")

        home.kill()
        dead = told(looked(tmp_path, cluster.url), "failed")
        assert f"127.0.0.1:{home.port} does not answer" in dead
        assert "promote a replica" in dead


@pytest.mark.parametrize(
    ("rights", "missing"),
    [
        ("~other:* +@all", "tag s"),
        ("~mh:* +@all -eval", "tag s"),
        ("~mh:* +@all -script", "script admit"),
        ("~mh:* +@all -info", "'info'"),
    ],
)
def test_rights_that_are_missing_are_named(tmp_path: Path, rights: str, missing: str) -> None:
    with clusters.server(user=f"house on >pw {rights}") as server:
        found = told(looked(tmp_path, f"redis://house:pw@127.0.0.1:{server.port}"), "failed")
        assert missing in found
        assert "README.md" in found


def test_behind_sentinel_the_silent_sentinels_are_named(tmp_path: Path) -> None:
    with clusters.sentinel_service() as service:
        master = service.master()
        assert "-> CONFIG SET min-replicas-to-write 1" in told(
            looked(tmp_path, service.url), "warning"
        )
        master.ask("CONFIG", "SET", "min-replicas-to-write", 1)
        master.ask("CONFIG", "SET", "appendonly", "yes")
        assert told(looked(tmp_path, service.url), "warning") == ""
        service.sentinels[2].kill()
        worn = looked(tmp_path, service.url)
        assert told(worn, "failed") == ""
        assert "1 of 3 sentinels do not answer" in told(worn, "warning")
