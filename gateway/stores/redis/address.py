"""Where the store is: one URL, read once."""

from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

DEFAULT_PORT: Final = 6379
_LATER: Final = frozenset({"redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel"})
_OPTIONS: Final = frozenset({"db", "ssl_ca_certs"})


class AddressError(ValueError):
    """A store URL that cannot be used. The message leaves the URL out: it may hold a password."""


class StoreAddress(msgspec.Struct, frozen=True):
    """A store over TCP (`host` and `port`) or over a unix socket (`path`)."""

    host: str = ""
    port: int = DEFAULT_PORT
    path: str | None = None
    tls: bool = False
    ca_file: str | None = None
    username: str | None = None
    password: str | None = None
    database: int = 0


def parse(url: str) -> StoreAddress:
    """What a `redis://`, `rediss://` or `unix://` URL names; AddressError says what is wrong.

    `redis://user:password@host:6379/0`, `rediss://host?ssl_ca_certs=FILE`, `unix:///path?db=0`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError as fault:
        raise AddressError("the store URL is malformed; write redis://host:6379/0") from fault
    if parts.scheme in _LATER:
        raise AddressError(
            f"{parts.scheme}:// is not available in this version; name one server with redis://, "
            "rediss:// or unix://"
        )
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise AddressError("the store URL must begin with redis://, rediss:// or unix://")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if unknown := sorted(options.keys() - _OPTIONS):
        raise AddressError(
            f"unknown option {unknown[0]!r} in the store URL; known: db, ssl_ca_certs"
        )
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


def _database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise AddressError(f"the store URL's database must be a number, not {text!r}")
    return int(text)
