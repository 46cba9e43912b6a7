"""What policies, budgets and limits share: a scope that exists and never moves."""

from typing import Literal, Protocol

from sqlalchemy import Connection

from gateway.admin.fields import Scope
from gateway.admin.operation import Filter, Page
from gateway.admin.problems import invalid
from gateway.stores.sql import scopes


class ScopedPage(Page, frozen=True, forbid_unknown_fields=True):
    tenant_id: Filter | None = None
    scope_kind: Literal["tenant", "team", "key"] | None = None
    scope_id: Filter | None = None


class Scoped(Protocol):
    @property
    def tenant_id(self) -> str: ...
    @property
    def scope_kind(self) -> str: ...
    @property
    def scope_id(self) -> str: ...


def place(connection: Connection, scope: Scope, before: Scoped | None) -> tuple[str, str, str]:
    """(kind, id, tenant id) of the scope. 422 when there is none or it is not the one it was."""
    kind, scope_id = scope.named()
    if before is not None:
        if (kind, scope_id) != (before.scope_kind, before.scope_id):
            raise invalid("scope", "the scope cannot change", "delete this one and make another")
        return kind, scope_id, before.tenant_id
    tenant_id = scopes.tenant_of(connection, kind, scope_id)
    if tenant_id is None:
        raise invalid(f"scope.{kind}", f"there is no {kind} {scope_id!r}")
    return kind, scope_id, tenant_id
