"""How one backend is reached: its endpoint, what speaks to it, and with which credential."""

from collections.abc import Callable
from typing import Protocol

from gateway.backends.dialects import DIALECTS
from gateway.backends.endpoint import Endpoint, Timeouts
from gateway.stores.sql import rows


class Sealed(Protocol):
    """A row with something in it that only this installation can read."""

    @property
    def id(self) -> str: ...
    @property
    def credential_sealed(self) -> bytes | None: ...


Unseal = Callable[[Sealed], str | None]  # what is sealed in clear; None where it does not open


class Reach:
    """Shared by every model on the backend."""

    def __init__(self, backend: rows.Backend, unseal: Unseal) -> None:
        self.backend = backend
        self.dialect = DIALECTS[backend.dialect]
        self.headers = self.dialect.headers(unseal(backend))
        self.provider = backend.provider or self.dialect.name
        self.timeouts = Timeouts(
            connect_ms=backend.connect_timeout_ms,
            first_byte_ms=backend.first_byte_timeout_ms,
            idle_ms=backend.idle_timeout_ms,
            total_ms=backend.total_timeout_ms,
        )
        self.endpoint = Endpoint.parse(backend.base_url, credential_id=backend.id)
        self.account = hash((self.endpoint.authority, self.endpoint.tls, tuple(self.headers)))
