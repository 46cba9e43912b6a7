"""What the admin token of a command may do, asked before anything is done with it."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.commands.remote import Remote, RemoteError

_CREATES: Final = {
    "tenant": "tenants:manage",
    "backend": "catalogue:change",
    "model": "catalogue:change",
    "policy": "policies:change",
    "discount": "prices:change",
    "commitment": "prices:change",
    "loop-breaker": "limits:change",
}
_CHANGES: Final = {"tenant": "tenants:change"}


class BarredError(Exception):
    """The admin token has no right to what a document asks for."""


class Holder(msgspec.Struct, frozen=True):
    """Who holds the token, in the words of `GET /whoami`."""

    role: str
    scope: Mapping[str, str] | None
    rights: frozenset[str]

    def require(self, kind: str, *, create: bool) -> None:
        """BarredError unless objects of the kind may be made, or changed."""
        if not self.may(kind, create=create):
            verb = "make" if create else "change"
            raise BarredError(f"the admin token is a {self.role}'s and may not {verb} a {kind}")

    def may(self, kind: str, *, create: bool) -> bool:
        """What may be made may be deleted as well."""
        right = _CREATES.get(kind, f"{kind}s:change")
        return (right if create else _CHANGES.get(kind, right)) in self.rights


def holder(remote: Remote) -> Holder:
    """RemoteError for one who stands at a team: documents begin with a tenant."""
    told: dict[str, Any] = remote.call("GET", "/whoami").json()
    if "team" in (told["scope"] or {}):
        raise RemoteError(
            "apply and export need an admin token of the platform or of a tenant; this one is of "
            "a team, and documents begin with the tenant"
        )
    return Holder(told["role"], told["scope"], frozenset(told["rights"]))
