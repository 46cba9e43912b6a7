"""redis-py for what is not hot: the jobs' leases, journals and reads of holds."""

from contextlib import suppress
from copy import copy
from typing import Any, Final, cast

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisClusterException, RedisError

from gateway.stores.redis.address import StoreAddress, parse

CONNECT_WITHIN_S: Final = 2.0
ANSWER_WITHIN_S: Final = 10.0  # above the longest blocking read


class _Cluster(RedisCluster):
    """As the client of one server, a fault of the store is a RedisError. Closes also what it has to
    servers that left the cluster while they were asked something, which redis-py forgets.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._left: dict[int, ClusterNode] = {}  # two of a name are equal, so by identity

    async def initialize(self, *args: Any, **options: Any) -> "_Cluster":
        before = self._members()
        try:
            await super().initialize(*args, **options)
        except RedisClusterException as fault:
            raise NotConnected(str(fault)) from fault
        finally:
            now, left = self._members(), self._left | before
            self._left = {n: one for n, one in left.items() if n not in now and _is_connected(one)}
        return self

    def _members(self) -> dict[int, ClusterNode]:
        known = self.nodes_manager
        return {
            id(one): one for one in (*known.startup_nodes.values(), *known.nodes_cache.values())
        }

    async def aclose(self) -> None:
        await super().aclose()
        for node in self._left.values():
            with suppress(RedisError, OSError):  # it is lost anyway
                await node.disconnect()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().execute_command(*args, **options)
        except RedisClusterException as fault:
            raise NotConnected(str(fault)) from fault


def _is_connected(node: ClusterNode) -> bool:
    connections = cast("Any", node)._connections  # noqa: SLF001 - it has no other way to tell
    return any(one.is_connected for one in connections)


class _Packing(AbstractConnection):
    """Writes commands as redis-py's blocking connections do: those that clear the journal name
    hundreds of entries, and its own way here copies what it has for each of them.
    """

    _packer: Final = HiredisRespSerializer()

    def pack_command(self, *args: Any) -> list[bytes]:
        packed: list[bytes] = self._packer.pack(*args)
        return packed


class _Sentinels(Sentinel):
    """Each search has a list of its own. redis-py moves whoever answered to the front of the one
    list that all searches go through: two at a time write one sentinel twice and lose another,
    and the connections to it.
    """

    async def discover_master(self, service_name: str) -> Any:
        search = copy(self)
        search.sentinels = list(self.sentinels)
        found = await Sentinel.discover_master(search, service_name)
        self.sentinels = search.sentinels
        return found


class _OfService(Redis):
    """Closes also the connections to those it asked for the master."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        for sentinel in cast("Any", self.connection_pool).sentinel_manager.sentinels:
            await sentinel.aclose()


def open_client(url: str) -> Redis:
    """A client that never retries by itself: whether to send a write twice is ours to decide. It
    does go where MOVED sends it, for that is said before anything happens.

    Connects on first need; raises AddressError for an URL that cannot be used.
    """
    address = parse(url)
    if address.kind == "cluster":
        # Both have the commands that our callers use, each on keys of one slot.
        return cast("Redis", _cluster(address))
    if address.kind == "sentinel":
        return _of_service(address)
    client = Redis(
        host=address.host,
        port=address.port,
        unix_socket_path=address.path,
        db=address.database,
        ssl=address.tls,
        ssl_ca_certs=address.ca_file,
        **_options(address.username, address.password),
    )
    pool = client.connection_pool
    pool.connection_class = type("_Connection", (_Packing, pool.connection_class), {})
    return client


def _cluster(address: StoreAddress) -> RedisCluster:
    return _Cluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.seeds],
        require_full_coverage=False,  # one shard that is down does not stop the others
        ssl=address.tls,
        ssl_ca_certs=address.ca_file,
        **_options(address.username, address.password),
    )


def _of_service(address: StoreAddress) -> Redis:
    tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": address.ca_file} if address.tls else {}
    sentinel = _Sentinels(  # type: ignore[no-untyped-call]
        list(address.seeds),
        sentinel_kwargs=tls | _options(address.sentinel_username, address.sentinel_password),
        db=address.database,
        **tls,
        **_options(address.username, address.password),
    )
    client: Redis = sentinel.master_for(address.service, redis_class=_OfService)
    return client


def _options(username: str | None, password: str | None) -> dict[str, Any]:
    return {
        "username": username,
        "password": password,
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": CONNECT_WITHIN_S,
        "socket_timeout": ANSWER_WITHIN_S,
    }
