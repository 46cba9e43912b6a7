"""Admin tokens: who may use this API, in which role and at which node. A secret is shown once.

Role and scope never change: what a token may do is settled when it is made, by somebody who may do
all of that himself.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from gateway import clock, ids, keyring
from gateway.admin import fields, roles
from gateway.admin.access import RefusedError
from gateway.admin.deps import AdminDeps
from gateway.admin.facts import Facts
from gateway.admin.keys import Rotation, SecretView
from gateway.admin.operation import Answer, Call, Filter, Nothing, Operation, Page
from gateway.admin.problems import conflict, invalid, together
from gateway.admin.resource import Resource, version_of
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
    now_us = clock.now_us()
    together(
        lambda: _expiry(body, before, now_us),
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
    return msgspec.structs.replace(
        before, name=body.name, expires_at_us=_expiry(body, before, now_us)
    )


def _expiry(body: AdminToken, before: rows.AdminToken | None, now_us: int) -> int | None:
    if body.expires_at is None:
        return None
    at_us = fields.instant(body.expires_at, "expires_at")
    if before is None and at_us <= now_us:
        raise invalid("expires_at", "this is in the past")
    return at_us


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


def _live(connection: Connection, token: rows.AdminToken) -> tuple[rows.AdminTokenSecret, ...]:
    now_us = clock.now_us()
    found = admin_tokens.SECRETS.all(connection, token_id=token.id, revoked_at_us=None)
    return tuple(
        each
        for each in sorted(found, key=lambda each: each.created_at_us)
        if each.expires_at_us is None or each.expires_at_us > now_us
    )


async def _show(
    _deps: AdminDeps, row: rows.AdminToken, secrets: tuple[rows.AdminTokenSecret, ...]
) -> AdminTokenView:
    shown = (
        SecretView(
            id=each.public_id,
            created_at=clock.rfc3339(each.created_at_us),
            expires_at=fields.shown_instant(each.expires_at_us),
        )
        for each in secrets
    )
    scope = None if row.scope_kind == "platform" else TokenScope(**{row.scope_kind: row.scope_id})
    return AdminTokenView(
        id=row.id,
        tenant_id=row.tenant_id,
        name=row.name,
        role=Role(row.role),
        scope=scope,
        expires_at=fields.shown_instant(row.expires_at_us),
        revoked_at=fields.shown_instant(row.revoked_at_us),
        secrets=tuple(shown),
        created_at=clock.rfc3339(row.created_at_us),
    )


def _new_secret(connection: Connection, deps: AdminDeps, token: rows.AdminToken) -> str:
    made = keyring.make("mha")
    pepper = deps.peppers.by_version[deps.peppers.current]
    admin_tokens.SECRETS.add(
        connection,
        rows.AdminTokenSecret(
            public_id=made.public_id,
            token_id=token.id,
            digest=keyring.digest(pepper, made.secret),
            pepper_version=deps.peppers.current,
            created_at_us=clock.now_us(),
        ),
    )
    return made.text


async def _create(call: Call) -> Answer:
    body = call.body(AdminToken)

    def work(connection: Connection) -> tuple[rows.AdminToken, Any, str]:
        token = _build(connection, call.deps, body, None)
        _require_less(call, token)
        call.changed(connection, "admin-tokens", None, token)
        with RESOURCE.unique():
            admin_tokens.RECORDS.add(connection, token)
        secret = _new_secret(connection, call.deps, token)
        return token, _live(connection, token), secret

    return await _shown_once(call, *await call.write(work))


def _require_less(call: Call, token: rows.AdminToken) -> None:
    """403 for a token that could do what its maker cannot. That it lies where he may put it is
    looked at where it is written down.
    """
    giver = call.principal.role
    if not roles.may_hand_out(giver, Role(token.role)):
        raise RefusedError(403, "forbidden", f"a {giver.value} cannot make a {token.role}")


async def _rotate(call: Call) -> Answer:
    overlap_us = call.body(Rotation).overlap_seconds * 1_000_000

    def work(connection: Connection) -> tuple[rows.AdminToken, Any, str]:
        token = RESOURCE.row(connection, call)
        if token.revoked_at_us is not None:
            raise conflict("revoked", "the token is revoked; make a new one")
        _require_less(call, token)
        now_us = clock.now_us()
        before = _live(connection, token)
        admin_tokens.TURNOVER.retire(connection, token.id, now_us, now_us + overlap_us)
        token = _bumped(connection, token)
        secret = _new_secret(connection, call.deps, token)
        after = _live(connection, token)
        call.changed(
            connection, "admin-tokens", token, token,
            facts_before=_secret_facts(before), facts_after=_secret_facts(after),
        )  # fmt: skip
        return token, after, secret

    return await _shown_once(call, *await call.write(work))


async def _revoke(call: Call) -> Answer:
    call.body(Nothing)

    def work(connection: Connection) -> rows.AdminToken:
        token = RESOURCE.row(connection, call)
        if token.revoked_at_us is not None:
            return token
        now_us = clock.now_us()
        admin_tokens.TURNOVER.revoke(connection, token.id, now_us)
        revoked = msgspec.structs.replace(token, revoked_at_us=now_us)
        call.changed(connection, "admin-tokens", token, revoked)
        return _bumped(connection, revoked)

    token = await call.write(work)
    return Answer(await _show(call.deps, token, ()), version_of(token))


def _secret_facts(secrets: tuple[rows.AdminTokenSecret, ...]) -> Facts:
    return {"secrets": {each.public_id: each.expires_at_us for each in secrets}}


def _bumped(connection: Connection, token: rows.AdminToken) -> rows.AdminToken:
    raised = msgspec.structs.replace(token, version=token.version + 1)
    return admin_tokens.RECORDS.replace(connection, raised)


async def _shown_once(
    call: Call, token: rows.AdminToken, secrets: tuple[rows.AdminTokenSecret, ...], secret: str
) -> Answer:
    view = await _show(call.deps, token, secrets)
    shown = NewAdminTokenView(**msgspec.structs.asdict(view), secret=secret)
    return Answer(shown, version_of(token), f"/admin/v1/admin-tokens/{token.id}")


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
    facts=_live,
    remove=admin_tokens.take_leave,
)


def operations() -> list[Operation]:
    noun, right = "admin-tokens", Right.TOKENS_CHANGE
    replaced = [each for each in RESOURCE.operations() if each.method != "POST"]
    return [
        *replaced,
        Operation(
            "POST", f"/{noun}", noun, "Create an admin token; its secret is shown this once",
            _create, right=right, status=201, body=AdminToken, answers=NewAdminTokenView,
            etag=True, refusals=(409, 422),
        ),
        Operation(
            "POST", f"/{noun}/{{id}}/rotate", noun, "Give the admin token a new secret", _rotate,
            right=right, body=Rotation, body_optional=True, answers=NewAdminTokenView, etag=True,
            refusals=(404, 409),
        ),
        Operation(
            "POST", f"/{noun}/{{id}}/revoke", noun, "Revoke the admin token and all its secrets",
            _revoke, right=right, body=Nothing, body_optional=True, answers=AdminTokenView,
            etag=True, refusals=(404,),
        ),
    ]  # fmt: skip
