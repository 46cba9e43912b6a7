"""Application keys: the secret is shown once, rotation overlaps, revocation is for ever."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from gateway import clock, ids
from gateway.admin import fields
from gateway.admin.bearers import Bearer, Secrets, SecretView, expiry, shown
from gateway.admin.deps import AdminDeps
from gateway.admin.operation import Call, Filter, Operation, Page
from gateway.admin.problems import invalid, together
from gateway.admin.resource import Resource
from gateway.admin.roles import Right
from gateway.stores.sql import keys, rows, teams

Cidr = Annotated[
    str,
    Meta(min_length=3, max_length=64, extra={"rule": "a network such as 10.0.0.0/8"}),
]


class KeyScopes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the key may be used for; null means no restriction of that kind."""

    models: Annotated[tuple[fields.ModelName, ...], Meta(max_length=256)] | None = None
    cidrs: Annotated[tuple[Cidr, ...], Meta(max_length=64)] | None = None


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    team_id: fields.Id
    name: fields.Name
    expires_at: fields.Instant | None = None
    scopes: KeyScopes = KeyScopes()


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant_id: str
    team_id: str
    name: str
    expires_at: str | None
    scopes: KeyScopes
    revoked_at: str | None
    secrets: tuple[SecretView, ...]
    created_at: str


class NewKeyView(KeyView, frozen=True, kw_only=True):
    """The only answer that ever carries the secret."""

    secret: str


class KeyPage(Page, frozen=True, forbid_unknown_fields=True):
    tenant_id: Filter | None = None
    team_id: Filter | None = None
    name: Filter | None = None


def _build(
    connection: Connection, _deps: AdminDeps, body: Key, before: rows.Key | None
) -> rows.Key:
    now_us = clock.now_us()
    scopes, is_new = body.scopes, before is None
    together(
        lambda: expiry(body.expires_at, now_us, is_new=is_new),
        lambda: _team(connection, body, before),
        lambda: fields.distinct(scopes.models, "scopes.models"),
        *(partial(_network, *each) for each in enumerate(scopes.cidrs or ())),
    )
    if before is None:
        team = _team(connection, body, before)
        before = rows.Key(
            id=ids.new("key"),
            tenant_id=team.tenant_id,
            team_id=team.id,
            name="",
            created_at_us=now_us,
        )
    cidrs = scopes.cidrs
    if cidrs is not None:
        cidrs = tuple(_network(*each) for each in enumerate(cidrs))
    return msgspec.structs.replace(
        before,
        name=body.name,
        expires_at_us=expiry(body.expires_at, now_us, is_new=is_new),
        models=scopes.models,
        cidrs=fields.distinct(cidrs, "scopes.cidrs"),
    )


def _team(connection: Connection, body: Key, before: rows.Key | None) -> rows.Team:
    team = teams.RECORDS.one(connection, id=body.team_id)
    if team is None:
        raise invalid("team_id", f"there is no team {body.team_id!r}")
    if before is not None and before.team_id != team.id:
        raise invalid("team_id", "a key stays with its team; make another key for another team")
    return team


def _network(position: int, cidr: str) -> str:
    return fields.network(cidr, f"scopes.cidrs[{position}]")


async def _show(_deps: AdminDeps, row: rows.Key, secrets: tuple[rows.KeySecret, ...]) -> KeyView:
    return KeyView(
        id=row.id,
        tenant_id=row.tenant_id,
        team_id=row.team_id,
        name=row.name,
        expires_at=fields.shown_instant(row.expires_at_us),
        scopes=KeyScopes(models=row.models, cidrs=row.cidrs),
        revoked_at=fields.shown_instant(row.revoked_at_us),
        secrets=shown(secrets),
        created_at=clock.rfc3339(row.created_at_us),
    )


SECRETS: Final = Secrets(keys.SECRETS, keys.TURNOVER, rows.KeySecret, owner="key_id", prefix="mh")
RESOURCE: Final = Resource(
    plural="keys",
    singular="key",
    records=keys.RECORDS,
    body=Key,
    view=KeyView,
    page=KeyPage,
    build=_build,
    show=_show,
    in_use=keys.in_use,
    taken="a key of this name in the team",
    reads=Right.KEYS_READ,
    changes=Right.KEYS_CHANGE,
    facts=SECRETS.live,
    remove=keys.take_leave,
)


def _change(call: Call, work: Callable[[Connection], Any]) -> Awaitable[Any]:
    """As the call does it, which may be a rehearsed one."""
    return call.change(work)


def operations() -> list[Operation]:
    return Bearer(RESOURCE, SECRETS, NewKeyView, "key", _change).operations()
