"""Application keys: the secret is shown once, rotation overlaps, revocation is for ever."""

from functools import partial
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from gateway import clock, ids, keyring
from gateway.admin import fields
from gateway.admin.deps import AdminDeps
from gateway.admin.facts import Facts
from gateway.admin.operation import Answer, Call, Filter, Nothing, Operation, Page
from gateway.admin.problems import conflict, invalid, together
from gateway.admin.resource import Resource, version_of
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


class SecretView(msgspec.Struct, frozen=True, kw_only=True):
    """A live secret, by the public part that logs may show: keys begin with `mh_<id>_`."""

    id: str
    created_at: str
    expires_at: str | None


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


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the secrets that are replaced live on."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=31_536_000)] = 86_400


def _build(
    connection: Connection, _deps: AdminDeps, body: Key, before: rows.Key | None
) -> rows.Key:
    now_us = clock.now_us()
    scopes = body.scopes
    together(
        lambda: _expiry(body, before, now_us),
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
        expires_at_us=_expiry(body, before, now_us),
        models=scopes.models,
        cidrs=fields.distinct(cidrs, "scopes.cidrs"),
    )


def _expiry(body: Key, before: rows.Key | None, now_us: int) -> int | None:
    if body.expires_at is None:
        return None
    at_us = fields.instant(body.expires_at, "expires_at")
    if before is None and at_us <= now_us:
        raise invalid("expires_at", "this is in the past")
    return at_us


def _team(connection: Connection, body: Key, before: rows.Key | None) -> rows.Team:
    team = teams.RECORDS.one(connection, id=body.team_id)
    if team is None:
        raise invalid("team_id", f"there is no team {body.team_id!r}")
    if before is not None and before.team_id != team.id:
        raise invalid("team_id", "a key stays with its team; make another key for another team")
    return team


def _network(position: int, cidr: str) -> str:
    return fields.network(cidr, f"scopes.cidrs[{position}]")


def _live(connection: Connection, key: rows.Key) -> tuple[rows.KeySecret, ...]:
    now_us = clock.now_us()
    found = keys.SECRETS.all(connection, key_id=key.id, revoked_at_us=None)
    found = tuple(sorted(found, key=lambda each: each.created_at_us))
    return tuple(
        each for each in found if each.expires_at_us is None or each.expires_at_us > now_us
    )


async def _show(_deps: AdminDeps, row: rows.Key, secrets: tuple[rows.KeySecret, ...]) -> KeyView:
    shown = (
        SecretView(
            id=each.public_id,
            created_at=clock.rfc3339(each.created_at_us),
            expires_at=fields.shown_instant(each.expires_at_us),
        )
        for each in secrets
    )
    return KeyView(
        id=row.id,
        tenant_id=row.tenant_id,
        team_id=row.team_id,
        name=row.name,
        expires_at=fields.shown_instant(row.expires_at_us),
        scopes=KeyScopes(models=row.models, cidrs=row.cidrs),
        revoked_at=fields.shown_instant(row.revoked_at_us),
        secrets=tuple(shown),
        created_at=clock.rfc3339(row.created_at_us),
    )


def _new_secret(connection: Connection, deps: AdminDeps, key: rows.Key) -> str:
    made = keyring.make()
    pepper = deps.peppers.by_version[deps.peppers.current]
    keys.SECRETS.add(
        connection,
        rows.KeySecret(
            public_id=made.public_id,
            key_id=key.id,
            digest=keyring.digest(pepper, made.secret),
            pepper_version=deps.peppers.current,
            created_at_us=clock.now_us(),
        ),
    )
    return made.text


async def _create(call: Call) -> Answer:
    body = call.body(Key)

    def work(connection: Connection) -> tuple[rows.Key, Any, str]:
        key = _build(connection, call.deps, body, None)
        call.changed(connection, "keys", None, key)
        with RESOURCE.unique():
            keys.RECORDS.add(connection, key)
        secret = _new_secret(connection, call.deps, key)
        return key, _live(connection, key), secret

    return await _shown_once(call, *await call.change(work))


async def _rotate(call: Call) -> Answer:
    overlap_us = call.body(Rotation).overlap_seconds * 1_000_000

    def work(connection: Connection) -> tuple[rows.Key, Any, str]:
        key = RESOURCE.row(connection, call)
        if key.revoked_at_us is not None:
            raise conflict("revoked", "the key is revoked; make a new one")
        now_us = clock.now_us()
        before = _live(connection, key)
        keys.TURNOVER.retire(connection, key.id, now_us, now_us + overlap_us)
        key = _bumped(connection, key)
        secret = _new_secret(connection, call.deps, key)
        after = _live(connection, key)
        call.changed(
            connection, "keys", key, key,
            facts_before=_secret_facts(before), facts_after=_secret_facts(after),
        )  # fmt: skip
        return key, after, secret

    return await _shown_once(call, *await call.change(work))


async def _revoke(call: Call) -> Answer:
    call.body(Nothing)

    def work(connection: Connection) -> rows.Key:
        key = RESOURCE.row(connection, call)
        if key.revoked_at_us is not None:
            return key
        now_us = clock.now_us()
        keys.TURNOVER.revoke(connection, key.id, now_us)
        revoked = msgspec.structs.replace(key, revoked_at_us=now_us)
        call.changed(connection, "keys", key, revoked)
        return _bumped(connection, revoked)

    key = await call.change(work)
    return Answer(await _show(call.deps, key, ()), version_of(key))


def _secret_facts(secrets: tuple[rows.KeySecret, ...]) -> Facts:
    """By their public part, and until when they live."""
    return {"secrets": {each.public_id: each.expires_at_us for each in secrets}}


def _bumped(connection: Connection, key: rows.Key) -> rows.Key:
    return keys.RECORDS.replace(connection, msgspec.structs.replace(key, version=key.version + 1))


async def _shown_once(
    call: Call, key: rows.Key, secrets: tuple[rows.KeySecret, ...], secret: str
) -> Answer:
    view = await _show(call.deps, key, secrets)
    shown = NewKeyView(**msgspec.structs.asdict(view), secret=secret)
    return Answer(shown, version_of(key), f"/admin/v1/keys/{key.id}")


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
    facts=_live,
    remove=keys.take_leave,
)


def operations() -> list[Operation]:
    replaced = [each for each in RESOURCE.operations() if each.method != "POST"]
    return [
        *replaced,
        Operation(
            "POST", "/keys", "keys", "Create a key; its secret is shown this once", _create,
            right=Right.KEYS_CHANGE, status=201, body=Key, answers=NewKeyView, etag=True,
            refusals=(409, 422),
        ),
        Operation(
            "POST", "/keys/{id}/rotate", "keys", "Give the key a new secret", _rotate,
            right=Right.KEYS_CHANGE, body=Rotation, body_optional=True, answers=NewKeyView,
            etag=True, refusals=(404, 409),
        ),
        Operation(
            "POST", "/keys/{id}/revoke", "keys", "Revoke the key and all its secrets", _revoke,
            right=Right.KEYS_CHANGE, body=Nothing, body_optional=True, answers=KeyView, etag=True,
            refusals=(404,),
        ),
    ]  # fmt: skip
