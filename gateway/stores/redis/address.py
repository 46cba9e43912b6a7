"""Where the store is: one URL, read once."""

from typing import Final, Literal
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import msgspec

DEFAULT_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
_SERVERS: Final = frozenset({"redis", "rediss", "unix"})
_OF_SEVERAL: Final = {
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
}
_OPTIONS: Final = frozenset({"db", "ssl_ca_certs"})
_OPTIONS_OF: Final = {
    "server": _OPTIONS,
    "cluster": frozenset({"ssl_ca_certs"}),
    "sentinel": _OPTIONS | {"sentinel_username", "sentinel_password"},
}

Kind = Literal["server", "cluster", "sentinel"]


class AddressError(ValueError):
    """A store URL that cannot be used. The message leaves the URL out: it may hold a password."""


class StoreAddress(msgspec.Struct, frozen=True):
    """A server over TCP (`host` and `port`) or over a unix socket (`path`); or a cluster, or a
    service behind Sentinel: those are asked at `seeds` where their servers are.
    """

    host: str = ""
    port: int = DEFAULT_PORT
    path: str | None = None
    tls: bool = False
    ca_file: str | None = None
    username: str | None = None
    password: str | None = None
    database: int = 0
    kind: Kind = "server"
    seeds: tuple[tuple[str, int], ...] = ()
    service: str = ""  # of Sentinel's
    sentinel_username: str | None = None
    sentinel_password: str | None = None

    def server(self, host: str, port: int) -> "StoreAddress":
        """One server of this cluster or service, with the same credentials and certificates."""
        return StoreAddress(
            host=host,
            port=port,
            tls=self.tls,
            ca_file=self.ca_file,
            username=self.username,
            password=self.password,
            database=self.database,
        )

    def sentinels(self) -> tuple["StoreAddress", ...]:
        """Those who know the service's master; they have credentials of their own."""
        return tuple(
            StoreAddress(
                host=host,
                port=port,
                tls=self.tls,
                ca_file=self.ca_file,
                username=self.sentinel_username,
                password=self.sentinel_password,
            )
            for host, port in self.seeds
        )


def parse(url: str) -> StoreAddress:
    """What a store URL names; AddressError says what is wrong.

    `redis://user:password@host:6379/0`, `rediss://host?ssl_ca_certs=FILE`, `unix:///path?db=0`,
    `redis+cluster://user:password@host:6379,host:6379`, `redis+sentinel://host:26379,host/service`;
    `rediss+cluster://` and `rediss+sentinel://` for TLS.
    """
    try:
        parts = urlsplit(url)
    except ValueError as fault:
        raise AddressError("the store URL is malformed; write redis://host:6379/0") from fault
    if parts.scheme in _OF_SEVERAL:
        return _of_several(parts)
    if parts.scheme not in _SERVERS:
        raise AddressError(
            "the store URL must begin with redis://, rediss://, unix://, redis+cluster:// or "
            "redis+sentinel://"
        )
    return _of_one(parts)


def _of_one(parts: SplitResult) -> StoreAddress:
    try:
        port = parts.port or DEFAULT_PORT
    except ValueError as fault:
        raise AddressError(
            "the store URL is malformed; write redis://host:6379/0, or redis+cluster:// for "
            "several servers"
        ) from fault
    options = _options(parts, "server")
    local = parts.scheme == "unix"
    if local and not parts.path:
        raise AddressError("a unix:// store URL needs the path of a socket")
    if not local and not parts.hostname:
        raise AddressError("the store URL names no host")
    return StoreAddress(
        host=parts.hostname or "",
        port=port,
        path=unquote(parts.path) if local else None,
        tls=parts.scheme == "rediss",
        ca_file=options.get("ssl_ca_certs"),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        database=_database(options.get("db") or ("" if local else parts.path.strip("/"))),
    )


def _of_several(parts: SplitResult) -> StoreAddress:
    kind: Kind = "cluster" if _OF_SEVERAL[parts.scheme] == "cluster" else "sentinel"
    options = _options(parts, kind)
    _, _, hosts = parts.netloc.rpartition("@")
    port = DEFAULT_PORT if kind == "cluster" else SENTINEL_PORT
    service, _, database = parts.path.strip("/").partition("/")
    if kind == "cluster" and service:
        raise AddressError("a cluster has one database; leave the path out of the store URL")
    if kind == "sentinel" and not service:
        raise AddressError(
            "a redis+sentinel:// store URL needs the service's name: host:26379/name"
        )
    return StoreAddress(
        tls=parts.scheme.startswith("rediss"),
        ca_file=options.get("ssl_ca_certs"),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        database=_database(options.get("db") or database),
        kind=kind,
        seeds=tuple(_seed(each, port) for each in hosts.split(",")),
        service=unquote(service),
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
    )


def _seed(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or default_port
    except ValueError as fault:
        raise AddressError("the store URL is malformed; write host:port,host:port") from fault
    if not host:
        raise AddressError("the store URL names no host")
    return host, port


def _options(parts: SplitResult, kind: Kind) -> dict[str, str]:
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    known = _OPTIONS_OF[kind]
    if unknown := sorted(options.keys() - known):
        raise AddressError(
            f"unknown option {unknown[0]!r} in the store URL; known: {', '.join(sorted(known))}"
        )
    return options


def _database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise AddressError(f"the store URL's database must be a number, not {text!r}")
    return int(text)
