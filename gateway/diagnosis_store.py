"""Looks at the store: each of its servers, and whether together they hold every tag.

Nothing is changed but what scripts the servers know. One that only reads is run for each tag, so
that a missing right, a slot that nobody serves and a server that cannot read our scripts show
before a request needs them.
"""

import asyncio
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError
from redis.retry import Retry

from gateway import clock, embedded
from gateway.finding import Finding
from gateway.program import typed
from gateway.settings import Settings, StartError, socket_path
from gateway.stores.redis import address, keys, scripts
from gateway.stores.redis.address import Kind, StoreAddress
from gateway.stores.redis.connection import StoreUnavailable, ask_once
from gateway.stores.redis.masters import Held, masters
from gateway.stores.redis.slots import slot_of
from gateway.supervisor import HOME_LOCK

_REMEDY: Final = "check METERHOUSE_REDIS_URL, its password and the network"
_REPAIR: Final = "look with redis-cli --cluster check HOST:PORT, mend with --cluster fix"
_PROMOTE: Final = "start it, or promote a replica of it (CLUSTER FAILOVER TAKEOVER there)"
_RIGHTS: Final = "give the user the rights that README.md lists for it"
_LEAST_STORE: Final = (7, 0)
_MOST_SKEW_US: Final = 1_000_000
_CONNECT_SECONDS: Final = 2.0


def store(settings: Settings) -> Iterator[Finding]:
    """One finding or more for each server that keeps data, and for the tags that none has."""
    path = socket_path(settings.home)
    if settings.redis_embedded and not _accepts(path):
        try:
            found = f"embedded, not running; {embedded.binary()}"
        except StartError as error:
            yield Finding("store", "failed", str(error))
            return
        if (pid := _supervisor(settings.run_dir)) is None:
            yield Finding("store", "ok", found, f"starts with {typed('up')}")
        else:
            found = f"{found}, although `up` runs (pid {pid})"
            yield Finding("store", "failed", found, _look_into(settings))
        return
    remedy = _look_into(settings) if settings.redis_embedded else _REMEDY
    try:
        where = address.parse(settings.redis_url)
        held = asyncio.run(masters(where))
    except address.AddressError as error:
        yield Finding("store", "failed", str(error), "correct METERHOUSE_REDIS_URL")
        return
    except StoreUnavailable as error:
        yield Finding("store", "failed", str(error), remedy)
        return
    if where.kind == "sentinel":
        yield from _sentinels(where)
    for one in held:
        yield from _server(where, one, remedy)
    yield from _unserved(where, held)


def _look_into(settings: Settings) -> str:
    log = settings.log_dir / "store.log"
    return f"{log} says why; {typed('up')} starts it again when it has ended, not while it hangs"


def _supervisor(run_dir: Path) -> int | None:
    """The pid of a running `up` of this home, by what it wrote down: its lock is left alone."""
    try:
        pid = int((run_dir / HOME_LOCK).read_text(encoding="ascii"))
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid


def _tags(where: StoreAddress) -> tuple[str, ...]:
    return keys.CLUSTER_TAGS if where.kind == "cluster" else keys.ONE_TAG


def _unserved(where: StoreAddress, held: Iterable[Held]) -> Iterator[Finding]:
    nobodys = [tag for tag in _tags(where) if not any(one.holds(slot_of(tag)) for one in held)]
    if nobodys:
        found = f"no server has the slots of {len(nobodys)} of {len(_tags(where))} tags"
        yield Finding("store", "failed", f"{found}: {', '.join(nobodys)}", _REPAIR)


def _sentinels(where: StoreAddress) -> Iterator[Finding]:
    asked = where.sentinels()
    silent = [one for one in asked if not asyncio.run(_answers(one))]
    if silent:
        names = ", ".join(f"{one.host}:{one.port}" for one in silent)
        found = f"{len(silent)} of {len(asked)} sentinels do not answer: {names}"
        yield Finding("store", "warning", found, "a majority must live for a failover")


async def _answers(server: StoreAddress) -> bool:
    try:
        return bool(await ask_once(server, _CONNECT_SECONDS, "PING"))
    except StoreUnavailable:
        return False


def _server(where: StoreAddress, one: Held, remedy: str) -> Iterator[Finding]:
    """`remedy`: for a server that does not answer, where it is not one of a cluster."""
    server = one.server
    name = "" if where.kind == "server" else f"{server.host}:{server.port} "
    client = Redis(
        host=server.host,
        port=server.port,
        unix_socket_path=server.path,
        username=server.username,
        password=server.password,
        db=server.database,
        ssl=server.tls,
        ssl_ca_certs=server.ca_file,
        socket_timeout=_CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        yield from _about(client, name, where.kind)
        yield from _scripts(client, name, [tag for tag in _tags(where) if one.holds(slot_of(tag))])
    except NoPermissionError as error:
        yield Finding("store", "failed", f"{name}{error}", _RIGHTS)
    except RedisError as error:
        remedy = _PROMOTE if where.kind == "cluster" else remedy
        yield Finding("store", "failed", f"{name}does not answer: {error}", remedy)
    finally:
        client.close()


def _about(client: Any, name: str, kind: Kind) -> Iterator[Finding]:
    began_us = clock.monotonic_us()
    seconds, micros = client.time()
    took_us = clock.monotonic_us() - began_us
    about: dict[str, Any] = client.info()
    version = str(about.get("valkey_version") or about["redis_version"])
    brand = about.get("server_name", "redis")
    found = f"{name}{brand} {version}, answers in {took_us / 1000:.1f} ms"
    if tuple(map(int, str(about["redis_version"]).split(".")[:2])) < _LEAST_STORE:
        yield Finding("store", "failed", found, "use Redis or Valkey 7.0 or newer")
        return
    yield Finding("store", "ok", found)
    if (skew_us := abs(clock.now_us() - (seconds * 1_000_000 + micros))) > _MOST_SKEW_US:
        found = f"{name}its clock is {skew_us / 1_000_000:.1f} s off ours"
        yield Finding("store", "warning", found, "run NTP on both: budget windows follow the store")
    if about.get("maxmemory") and about.get("maxmemory_policy") != "noeviction":
        remedy = "CONFIG SET maxmemory-policy noeviction"
        yield Finding("store", "warning", f"{name}it may evict holds and counters", remedy)
    if not about.get("aof_enabled"):
        remedy = "CONFIG SET appendonly yes"
        yield Finding("store", "warning", f"{name}it forgets everything when restarted", remedy)
    if kind != "server":
        yield from _replication(about, name, kind)


def _replication(about: Mapping[str, Any], name: str, kind: Kind) -> Iterator[Finding]:
    if not about.get("connected_slaves"):
        found = f"{name}has no replica: its tenants are refused for as long as it is away"
        yield Finding("store", "warning", found, "add a replica to it")
    if kind == "sentinel" and "min_slaves_good_slaves" not in about:
        found = f"{name}goes on as master when it is cut off from its replicas"
        yield Finding("store", "warning", found, "CONFIG SET min-replicas-to-write 1")


def _scripts(client: Any, name: str, tags: list[str]) -> Iterator[Finding]:
    """The first tag of this server that cannot be used."""
    for tag in tags:
        try:
            client.eval(scripts.OVERDUE.text.decode(), 1, keys.holds(tag), 0, 0)
        except NoPermissionError as error:
            yield Finding("store", "failed", f"{name}tag {tag}: {error}", _RIGHTS)
            return
        except RedisError as error:
            remedy = _REPAIR if name else _REMEDY
            yield Finding("store", "failed", f"{name}tag {tag}: {error}", remedy)
            return
    for script in scripts.HOT:
        try:
            client.script_load(script.text)
        except NoPermissionError as error:
            yield Finding("store", "failed", f"{name}script {script.name}: {error}", _RIGHTS)
            return
        except RedisError as error:
            remedy = "use Redis or Valkey 7.0 or newer, with its Lua libraries"
            yield Finding("store", "failed", f"{name}script {script.name}: {error}", remedy)
            return


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
