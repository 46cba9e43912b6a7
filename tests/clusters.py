"""Real servers that are several: a cluster, and a service behind Sentinel, of the same binary that
the gateway embeds; each on free loopback ports, ended by its own process id.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import short_directory, spawn, valkey_binary

SLOTS = 16_384
NODE_TIMEOUT_MS = 1_000
WITHIN_S = 90.0
_PORTS = range(12_000, 22_000)  # of a cluster's server its bus is 10,000 higher


class Member:
    """One server of several. `login` is how it is asked (redis-py's options)."""

    def __init__(
        self,
        directory: Path,
        port: int,
        options: Mapping[str, str],
        *mode: str,
        binary: str = "",
        login: Mapping[str, Any] = {},
    ) -> None:
        self.port = port
        self._directory = directory
        self._options = {name: value.format(port=port) for name, value in options.items()}
        self._mode = mode
        self._binary = binary or valkey_binary()
        self._login = {"socket_timeout": 2, "protocol": 2, "retry": Retry(NoBackoff(), 0)} | login
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir()
        self._config = directory / "server.conf"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start and wait until it answers PING."""
        if not self._config.exists():
            lines = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self._directory)}
            lines |= self._options
            self._config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        argv = [self._binary, str(self._config), *self._mode]
        self._process = spawn(argv, self._directory / "log")
        eventually(lambda: self.ask("PING"))

    def ask(self, *words: Any) -> Any:
        with redis.Redis("127.0.0.1", self.port, **self._login) as client:
            client.response_callbacks.clear()
            return client.execute_command(*words)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def fall_behind(self, master: "Member") -> None:
        """As a replica: hear nothing more of the master, and keep what was heard until now."""
        self.ask("CONFIG", "SET", "masterauth", "wrong")
        eventually(lambda: master.ask("CLIENT", "KILL", "TYPE", "replica") and not _linked(self))


class Cluster:
    """Masters, and a replica for each or none: `members` are the masters first."""

    def __init__(self, masters: list[Member], replicas: list[Member]) -> None:
        self.members = [*masters, *replicas]
        self.seeds = ",".join(f"127.0.0.1:{member.port}" for member in self.members)
        self.url = f"redis+cluster://{self.seeds}"
        self._masters, self._replicas = masters, replicas

    def form(self) -> None:
        first, *others = self.members
        for n, member in enumerate(self.members):
            member.ask("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for other in others:
            first.ask("CLUSTER", "MEET", "127.0.0.1", other.port)
        share = SLOTS // len(self._masters)
        for n, master in enumerate(self._masters):
            last = SLOTS - 1 if master is self._masters[-1] else (n + 1) * share - 1
            master.ask("CLUSTER", "ADDSLOTSRANGE", n * share, last)
        eventually(lambda: all(self._sees(each, len(self.members)) for each in self.members))
        for master, replica in zip(self._masters, self._replicas, strict=False):
            replica.ask("CLUSTER", "REPLICATE", master.ask("CLUSTER", "MYID"))
        eventually(lambda: all(_ok(member) for member in self.members))
        eventually(lambda: all(_linked(replica) for replica in self._replicas))

    def master_of(self, tag: str) -> Member:
        """As the majority sees it now."""
        slot = int(self._alive().ask("CLUSTER", "KEYSLOT", f"{{{tag}}}"))
        for member in self.members:
            with contextlib.suppress(redis.RedisError, OSError):
                if member.ask("ROLE")[0] == b"master" and slot in _held(member):
                    return member
        raise RuntimeError(f"nobody serves {tag}")

    def is_sound(self) -> None:
        """Returns when every server is up and every master has its replica again."""
        eventually(lambda: all(_ok(member) for member in self.members))
        half = len(self.members) // 2
        eventually(lambda: sum(_linked(member) for member in self.members) == half)

    def empty(self) -> None:
        """All that is kept on the masters of now is gone."""
        for member in self.members:
            with contextlib.suppress(redis.ConnectionError):
                if member.ask("ROLE")[0] == b"master":
                    member.ask("FLUSHALL")

    def replica_of(self, master: Member) -> Member:
        """Its one replica."""
        port = master.port
        return next(
            each
            for each in self.members
            if (role := each.ask("ROLE"))[0] == b"slave" and int(role[2]) == port
        )

    def _alive(self) -> Member:
        for member in self.members:
            with contextlib.suppress(redis.RedisError, OSError):
                member.ask("PING")
                return member
        raise RuntimeError("no server is alive")

    @staticmethod
    def _sees(member: Member, many: int) -> bool:
        return int(_info(member)["cluster_known_nodes"]) == many


def _info(member: Member) -> dict[str, str]:
    told: bytes = member.ask("CLUSTER", "INFO")
    return dict(line.split(":", 1) for line in told.decode().split())


def _ok(member: Member) -> bool:
    return _info(member)["cluster_state"] == "ok"


def _linked(replica: Member) -> bool:
    role = replica.ask("ROLE")
    return bool(role[0] == b"slave" and role[3] == b"connected")


def _held(member: Member) -> set[int]:
    me: Any = member.ask("CLUSTER", "MYID")
    held: set[int] = set()
    for first, last, master, *_ in member.ask("CLUSTER", "SLOTS"):
        if master[2] == me:
            held |= set(range(first, last + 1))
    return held


class Service:
    """A master, its replicas and those who watch them, under the name `house`."""

    def __init__(self, servers: list[Member], sentinels: list[Member], password: str) -> None:
        self.servers = servers
        self.sentinels = sentinels
        self._password = password
        self.seeds = ",".join(f"127.0.0.1:{each.port}" for each in sentinels)
        self.url = f"redis+sentinel://:{password}@{self.seeds}/house"

    def form(self) -> None:
        first, *others = self.servers
        for other in others:
            other.ask("REPLICAOF", "127.0.0.1", first.port)
        eventually(lambda: all(each.ask("ROLE")[3] == b"connected" for each in others))
        quorum = len(self.sentinels) // 2 + 1
        for each in self.sentinels:
            each.ask("SENTINEL", "MONITOR", "house", "127.0.0.1", first.port, quorum)
            for name, value in {
                "down-after-milliseconds": NODE_TIMEOUT_MS,
                "failover-timeout": 5_000,
                "auth-pass": self._password,
            }.items():
                each.ask("SENTINEL", "SET", "house", name, value)
        eventually(lambda: all(self._complete(each) for each in self.sentinels))

    def master(self) -> Member:
        """As the first sentinel sees it now."""
        found = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "house")
        return next(each for each in self.servers if each.port == int(found[1]))

    def _complete(self, sentinel: Member) -> bool:
        answer = sentinel.ask("SENTINEL", "MASTER", "house")
        facts = dict(zip(answer[::2], answer[1::2], strict=True))
        replicas, others = len(self.servers) - 1, len(self.sentinels) - 1
        return (
            int(facts[b"num-slaves"]) == replicas and int(facts[b"num-other-sentinels"]) == others
        )


@contextlib.contextmanager
def cluster(
    *, replicas: bool = True, binary: str = "", login: Mapping[str, Any] = {}, **options: str
) -> Iterator[Cluster]:
    """Three masters, with a replica each; `options` are directives."""
    settings = {
        "cluster-enabled": "yes",
        "cluster-node-timeout": str(NODE_TIMEOUT_MS),
        "cluster-require-full-coverage": "no",
        "cluster-replica-validity-factor": "0",
        "repl-diskless-sync-delay": "0",
        "save": '""',
    } | options
    with _members() as add:
        many = 6 if replicas else 3
        members = [add(settings, binary=binary, login=login) for _ in range(many)]
        found = Cluster(members[:3], members[3:])
        found.form()
        yield found


@contextlib.contextmanager
def server(*, binary: str = "", login: Mapping[str, Any] = {}, **options: str) -> Iterator[Member]:
    """One on a TCP port."""
    with _members() as add:
        yield add({"save": '""'} | options, binary=binary, login=login)


@contextlib.contextmanager
def sentinel_service(
    replicas: int = 2,
    password: str = "test",
    *,
    binary: str = "",
    login: Mapping[str, Any] = {},
    sentinels: Mapping[str, str] = {},
    **options: str,
) -> Iterator[Service]:
    """One master with its replicas, and three sentinels with directives of their own."""
    settings = {
        "requirepass": password,
        "masterauth": password,
        "repl-diskless-sync-delay": "0",
        "save": '""',
    } | options
    mine = {"password": password, **login}
    with _members() as add:
        servers = [add(settings, binary=binary, login=mine) for _ in range(1 + replicas)]
        watchers = [
            add(
                sentinels,
                "--sentinel",
                binary=binary,
                login={"password": sentinels.get("requirepass"), **login},
            )
            for _ in range(3)
        ]
        found = Service(servers, watchers, password)
        found.form()
        yield found


@contextlib.contextmanager
def _members() -> Iterator[Callable[..., Member]]:
    """Adds started servers; ends those that were."""
    with short_directory("mh-cluster-") as directory, contextlib.ExitStack() as stack:

        def add(settings: Mapping[str, str], *mode: str, **how: Any) -> Member:
            port = free_port()
            member = Member(directory / str(port), port, settings, *mode, **how)
            stack.callback(member.kill)
            member.start()
            return member

        yield add


def free_port() -> int:
    """A port that is free now together with its bus port."""
    start = os.getpid() * 7 % len(_PORTS)
    for n in range(len(_PORTS)):
        port = _PORTS[(start + n) % len(_PORTS)]
        try:
            with (
                socket.create_server(("127.0.0.1", port)),
                socket.create_server(("127.0.0.1", port + 10_000)),
            ):
                return port
        except OSError:
            continue
    raise RuntimeError("no free port")


def eventually(true: Callable[[], Any], within_s: float = WITHIN_S) -> None:
    """Waits for something that another process does; what it asks may refuse meanwhile."""
    deadline = time.monotonic() + within_s
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            if true():
                return
        if time.monotonic() > deadline:
            raise RuntimeError("it did not come to pass")
        time.sleep(0.02)
