"""A store that asks for TLS, or for a user with no more rights than we need: one server, a cluster,
and the whole gateway on each.
"""

import asyncio
import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.diagnosis_store import store
from gateway.settings import Settings
from gateway.stores.redis import address
from gateway.stores.redis.channel import Channels, StoreUnavailable
from tests import certificates, clusters, failover
from tests.running import run

# As README.md has it.
ACL = "on >s3cret ~mh:* &mh:config +@all -@admin -@dangerous +info +role"
LOGIN = "meterhouse:s3cret"
LOOKER = "on >l00k -@all +ping +sentinel|master +sentinel|masters"


@pytest.fixture(scope="module")
def with_tls() -> str:
    """A server that speaks TLS; ours does not."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server on PATH")
    said = subprocess.run(
        [binary, "--port", "0", "--tls-port", "1"], check=False, capture_output=True, text=True
    ).stdout
    if "No tls-cert-file configured" not in said:
        pytest.skip("the redis-server on PATH was built without TLS")
    return binary


@contextlib.contextmanager
def tls_cluster(binary: str, directory: Path) -> Iterator[tuple[clusters.Cluster, Path]]:
    options, authority = tls_options(directory)
    login = {"ssl": True, "ssl_ca_certs": str(authority)}
    more = {"tls-cluster": "yes", "tls-replication": "yes"}
    with clusters.cluster(replicas=False, binary=binary, login=login, **options, **more) as found:
        yield found, authority


@contextlib.contextmanager
def tls_service(binary: str, directory: Path) -> Iterator[tuple[clusters.Service, Path]]:
    """Both ask for users: a master for ours, and each sentinel for one that may look only."""
    options, authority = tls_options(directory)
    login = {"ssl": True, "ssl_ca_certs": str(authority)}
    options["tls-replication"] = "yes"
    watching = options | {"user": f"looker {LOOKER}"}
    watching |= {"requirepass": "w4tch", "sentinel sentinel-pass": "w4tch"}
    with clusters.sentinel_service(
        binary=binary, login=login, sentinels=watching, **options
    ) as found:
        yield found, authority


def tls_options(directory: Path) -> tuple[dict[str, str], Path]:
    chain, authority = certificates.written(directory)
    options = {
        "port": "0",
        "tls-port": "{port}",
        "tls-cert-file": str(chain),
        "tls-key-file": str(chain),
        "tls-ca-cert-file": str(authority),
        "tls-auth-clients": "no",
        "user": f"meterhouse {ACL}",
    }
    return options, authority


def all_is_allowed(home: Path, url: str) -> None:
    """Whatever `doctor` looks at, and whatever a budget needs that is spent to its last answer."""
    run(a_budget_is_spent(home, url))
    settings = Settings.from_env({"METERHOUSE_HOME": str(home), "METERHOUSE_REDIS_URL": url})
    assert [one for one in store(settings) if one.state == "failed"] == []


async def a_budget_is_spent(home: Path, url: str) -> None:
    async with failover.scene(home, url) as here:
        tenant = await here.tenant("1.00")
        await tenant.spend(3)
        await here.closed()
        here.agree(10)


def test_one_server_with_tls_and_a_user(tmp_path: Path, with_tls: str) -> None:
    options, authority = tls_options(tmp_path)
    login = {"ssl": True, "ssl_ca_certs": str(authority)}
    with clusters.server(binary=with_tls, login=login, **options) as server:
        where = f"rediss://{LOGIN}@127.0.0.1:{server.port}"
        all_is_allowed(tmp_path, f"{where}?ssl_ca_certs={authority}")
        run(is_refused(where))  # nobody vouches for its certificate
        run(is_refused(f"redis://{LOGIN}@127.0.0.1:{server.port}"))
        run(is_refused(f"rediss://meterhouse:x@127.0.0.1:{server.port}?ssl_ca_certs={authority}"))


def test_a_cluster_with_tls_and_a_user(tmp_path: Path, with_tls: str) -> None:
    with tls_cluster(with_tls, tmp_path) as (cluster, authority):
        where = f"rediss+cluster://{LOGIN}@{cluster.seeds}"
        all_is_allowed(tmp_path, f"{where}?ssl_ca_certs={authority}")
        run(is_refused(where))


def test_a_service_behind_sentinels_with_tls_and_users_is_followed_to_its_next_master(
    tmp_path: Path, with_tls: str, figure: Callable[[str], None]
) -> None:
    with tls_service(with_tls, tmp_path) as (service, authority):
        where = f"rediss+sentinel://{LOGIN}@{service.seeds}/house"
        trusting = f"?ssl_ca_certs={authority}"
        watched = "&sentinel_username=looker&sentinel_password=l00k"
        run(is_refused(f"{where}?{watched.removeprefix('&')}"))  # nobody vouches for them
        run(is_refused(f"{where}{trusting}"))  # no sentinel answers without its user
        run(is_refused(f"{where.replace('s3cret', 'x')}{trusting}{watched}"))
        run(is_refused(f"redis+sentinel://{LOGIN}@{service.seeds}/house?{watched[1:]}"))
        figure(run(a_master_is_lost(tmp_path, f"{where}{trusting}{watched}", service), 90))
        all_is_allowed(tmp_path / "whole", f"{where}{trusting}{watched}")


async def a_master_is_lost(home: Path, url: str, service: clusters.Service) -> str:
    async with failover.scene(home / "lost", url) as here:
        tenant = await here.tenant("10.00")
        spending = asyncio.create_task(tenant.spend(3))
        await here.until(lambda: tenant.served > 20)
        master = service.master()
        master.kill()
        at = time.monotonic()
        await spending
        assert service.master() is not master
        await here.closed()
        here.agree(100)
        back = tenant.back_after_ms(at)
        return f"behind 3 sentinels with TLS and users, the master killed -9: again after {back} ms"


def test_a_cluster_with_a_user(tmp_path: Path) -> None:
    with clusters.cluster(replicas=False, user=f"meterhouse {ACL}") as cluster:
        all_is_allowed(tmp_path, f"redis+cluster://{LOGIN}@{cluster.seeds}")
        run(is_refused(f"redis+cluster://meterhouse:x@{cluster.seeds}"))


async def is_refused(url: str) -> None:
    channels = Channels(address.parse(url))
    try:
        with pytest.raises(StoreUnavailable, match="no connection"):
            await channels.open(0.5)
    finally:
        await channels.close()
