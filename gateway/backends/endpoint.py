"""Where a backend listens and how long we wait for it, as values."""

from urllib.parse import urlsplit

import msgspec


class Endpoint(msgspec.Struct, frozen=True, cache_hash=True):
    """One origin and credential: connections are shared between equal endpoints only."""

    host: str
    port: int
    tls: bool
    base_path: str  # "/v1"; empty or beginning with a slash, never ending with one
    credential_id: str = ""

    @classmethod
    def parse(cls, base_url: str, credential_id: str = "") -> "Endpoint":
        """ValueError unless the URL is http or https with a host and nothing but a path after."""
        if not base_url.isprintable() or " " in base_url:  # urlsplit would drop them in silence
            raise ValueError(f"{base_url!r} contains a space or a control character")
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"{base_url!r} is not an http:// or https:// URL with a host")
        if url.query or url.fragment or url.username is not None:
            raise ValueError(f"{base_url!r} must end after its path, without credentials")
        if not url.path.isascii():
            raise ValueError(f"the path of {base_url!r} must be percent-encoded")
        tls = url.scheme == "https"
        port = url.port or (443 if tls else 80)
        host = url.hostname.encode("idna").decode() if not url.hostname.isascii() else url.hostname
        return cls(host, port, tls, url.path.rstrip("/"), credential_id)

    @property
    def authority(self) -> str:
        """The `host` header: no default port, IPv6 in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class Timeouts(msgspec.Struct, frozen=True):
    """Each phase's patience in milliseconds. `total_ms` runs from the call, queueing included."""

    pool_ms: int = 5_000  # for a free connection
    connect_ms: int = 5_000  # name, TCP and TLS together
    first_byte_ms: int = 300_000  # from the first byte written to the answer's head
    idle_ms: int = 60_000  # between two pieces of the body, while somebody waits for them
    total_ms: int = 600_000
