"""Admin tokens: who may use this API, in which role and at which node. A secret is shown once.

Role and scope never change: what a token may do is settled when it is made, by somebody who may do
all of that himself.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from gateway import clock, ids
from gateway.admin import fields, roles
from gateway.admin.access import RefusedError
from gateway.admin.bearers import Bearer, Secrets, SecretView, expiry, shown
from gateway.admin.deps import AdminDeps
from gateway.admin.operation import Call, Filter, Operation, Page
from gateway.admin.principal import BOOTSTRAP
from gateway.admin.problems import invalid, together
from gateway.admin.resource import Resource
from gateway.admin.roles import Right, Role
from gateway.stores.sql import admin_tokens, rows, scopes

_AT: Final = {  # the kinds of node at which a role may stand
    Role.PLATFORM_ADMIN: ("platform",),
    Role.TENANT_ADMIN: ("tenant",),
    Role.TEAM_ADMIN: ("team",),
    Role.FINANCE: ("platform", "tenant"),
    Role.AUDITOR: ("platform", "tenant"),
}


class TokenScope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The node whose subtree the token is for: exactly one of the two."""

    tenant: fields.Id | None = None
    team: fields.Id | None = None


class AdminToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`scope` left out or null: the whole platform. A tenant_admin needs a tenant, a team_admin a
    team; finance and auditor may have a tenant.
    """

    name: fields.Name
    role: Role
    scope: TokenScope | None = None
    expires_at: fields.Instant | None = None


class AdminTokenView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant_id: str | None
    name: str
    role: Role
    scope: TokenScope | None
    expires_at: str | None
    revoked_at: str | None
    secrets: Annotated[
        tuple[SecretView, ...], Meta(description="by their public part: `mha_<id>_`")
    ]
    created_at: str


class NewAdminTokenView(AdminTokenView, frozen=True, kw_only=True):
    """The only answer that ever carries the secret."""

    secret: str


class AdminTokenPage(Page, frozen=True, forbid_unknown_fields=True):
    name: Filter | None = None
    role: Role | None = None
    tenant_id: Filter | None = None
    scope_id: Filter | None = None


def _build(
    connection: Connection, _deps: AdminDeps, body: AdminToken, before: rows.AdminToken | None
) -> rows.AdminToken:
    now_us, is_new = clock.now_us(), before is None
    together(
        lambda: expiry(body.expires_at, now_us, is_new=is_new),
        lambda: _place(connection, body),
    )
    kind, scope_id, tenant_id = _place(connection, body)
    if before is None:
        before = rows.AdminToken(
            id=ids.new("adm"),
            tenant_id=tenant_id,
            name="",
            role=body.role.value,
            scope_kind=kind,
            scope_id=scope_id,
            created_at_us=now_us,
        )
    elif (before.role, before.scope_kind, before.scope_id) != (body.role.value, kind, scope_id):
        raise invalid("role", "role and scope never change", "revoke this token and make another")
    expires_at_us = expiry(body.expires_at, now_us, is_new=is_new)
    return msgspec.structs.replace(before, name=body.name, expires_at_us=expires_at_us)


def _place(connection: Connection, body: AdminToken) -> tuple[str, str, str | None]:
    """(kind, id, tenant id) of the scope. 422 unless the role can stand there."""
    kind, scope_id = "platform", ""
    if body.scope is not None:
        kind, scope_id = _named(body.scope)
    if kind not in _AT[body.role]:
        places = " or ".join(_WORDS[each] for each in _AT[body.role])
        raise invalid("scope", f"a {body.role.value} has {places}")
    if kind == "platform":
        return kind, scope_id, None
    tenant_id = scopes.tenant_of(connection, kind, scope_id)
    if tenant_id is None:
        raise invalid(f"scope.{kind}", f"there is no {kind} {scope_id!r}")
    return kind, scope_id, tenant_id


_WORDS: Final = {"platform": "no scope", "tenant": "a tenant", "team": "a team"}


def _named(scope: TokenScope) -> tuple[str, str]:
    given = [(kind, getattr(scope, kind)) for kind in ("tenant", "team")]
    given = [(kind, value) for kind, value in given if value is not None]
    if len(given) != 1:
        raise invalid("scope", "name exactly one of tenant or team")
    return given[0]


async def _show(
    _deps: AdminDeps, row: rows.AdminToken, secrets: tuple[rows.AdminTokenSecret, ...]
) -> AdminTokenView:
    scope = None if row.scope_kind == "platform" else TokenScope(**{row.scope_kind: row.scope_id})
    return AdminTokenView(
        id=row.id,
        tenant_id=row.tenant_id,
        name=row.name,
        role=Role(row.role),
        scope=scope,
        expires_at=fields.shown_instant(row.expires_at_us),
        revoked_at=fields.shown_instant(row.revoked_at_us),
        secrets=shown(secrets),
        created_at=clock.rfc3339(row.created_at_us),
    )


def _require_less(call: Call, token: rows.AdminToken) -> None:
    """403 for a token that could do what its maker cannot. That it lies where he may put it is
    looked at where it is written down.
    """
    giver = call.principal.role
    if not roles.may_hand_out(giver, Role(token.role)):
        raise RefusedError(403, "forbidden", f"a {giver.value} cannot make a {token.role}")


def _signed(connection: Connection, by: str) -> dict[str, Any]:
    """The installation's own token is nobody's: it may do everything anyway."""
    if by == BOOTSTRAP.id:
        return {}
    return {"made_by": " ".join(sorted(admin_tokens.hands(connection, by, ever=True)))}


SECRETS: Final = Secrets(
    admin_tokens.SECRETS,
    admin_tokens.TURNOVER,
    rows.AdminTokenSecret,
    owner="token_id",
    prefix="mha",
    signed=_signed,
)
RESOURCE: Final = Resource(
    plural="admin-tokens",
    singular="admin token",
    records=admin_tokens.RECORDS,
    body=AdminToken,
    view=AdminTokenView,
    page=AdminTokenPage,
    build=_build,
    show=_show,
    in_use=lambda _connection, _row: None,
    taken="an admin token of this name at this scope",
    reads=Right.TOKENS_READ,
    changes=Right.TOKENS_CHANGE,
    facts=SECRETS.live,
    remove=admin_tokens.take_leave,
)


def operations() -> list[Operation]:
    bearer = Bearer(
        RESOURCE, SECRETS, NewAdminTokenView, "admin token", Call.write, allowed=_require_less
    )
    return bearer.operations()
