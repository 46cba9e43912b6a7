"""Tenants: name, currency, time zone, permitted tag names."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from gateway import clock, ids
from gateway.admin import fields, opening
from gateway.admin.deps import AdminDeps
from gateway.admin.operation import Call, Filter, Page
from gateway.admin.principal import Principal
from gateway.admin.problems import ProblemError, conflict, together
from gateway.admin.resource import Resource
from gateway.admin.roles import Right
from gateway.stores.sql import pseudonym_keys, rows, tenants, terms

TagName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=32,
        pattern=r"^[a-z0-9_.-]+$",
        extra={"rule": "a tag's name of at most 32 lower case letters, digits and _ . -"},
    ),
]
Zone = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        description="IANA",
        extra={"rule": "a time zone such as Europe/Berlin or UTC"},
    ),
]

_END_USERS: Final = (
    "what is kept of the end users that apps name (`safety_identifier`, `user`, "
    "`metadata.user_id`): nothing, or a pseudonym that can be erased"
)


class Tenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: fields.Name
    currency: fields.Currency
    timezone: Zone
    tag_names: Annotated[tuple[TagName, ...], Meta(max_length=64)] | None = None
    end_users: Annotated[Literal["off", "pseudonym"], Meta(description=_END_USERS)] = "off"


class TenantView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    currency: str
    timezone: str
    tag_names: tuple[str, ...] | None
    end_users: str
    created_at: str


class TenantPage(Page, frozen=True, forbid_unknown_fields=True):
    name: Filter | None = None


def _build(
    connection: Connection, deps: AdminDeps, body: Tenant, before: rows.Tenant | None
) -> rows.Tenant:
    together(
        lambda: fields.currency(body.currency),
        lambda: fields.timezone(body.timezone),
        lambda: fields.distinct(body.tag_names, "tag_names"),
    )
    if before is None:
        before = rows.Tenant(
            id=ids.new("tenant"),
            name="",
            currency="",
            timezone="",
            shard=tenants.least_used(connection, deps.tags),
            created_at_us=clock.now_us(),
        )
    if before.currency != body.currency and before.currency:
        money = tenants.has_money(connection, before.id)
        if money is not None:
            raise conflict(
                "currency_in_use", f"the currency cannot change: {money} are kept in it already"
            )
    if before.timezone != body.timezone and before.timezone:
        tenants.count_anew(connection, before.id, clock.now_us())
    return msgspec.structs.replace(
        before,
        name=body.name,
        currency=body.currency,
        timezone=body.timezone,
        tag_names=body.tag_names,
        end_users=body.end_users,
    )


def _reserved(principal: Principal, before: rows.Tenant, after: rows.Tenant) -> None:
    """Names are the platform's: they are unique over all tenants, and stand on invoices."""
    if principal.everywhere:
        return
    for field in ("name", "currency"):
        if getattr(before, field) != getattr(after, field):
            raise ProblemError(
                403, "forbidden", f"{field}: only a platform_admin changes it; leave it as it is"
            )


async def _show(_deps: AdminDeps, row: rows.Tenant, _facts: None) -> TenantView:
    return TenantView(
        id=row.id,
        name=row.name,
        currency=row.currency,
        timezone=row.timezone,
        tag_names=row.tag_names,
        end_users=row.end_users,
        created_at=clock.rfc3339(row.created_at_us),
    )


def _entails(call: Call, connection: Connection, _: rows.Tenant | None, row: rows.Tenant) -> None:
    if row.end_users == "pseudonym":
        pseudonym_keys.ensure(connection, call.deps.sealer, row.id)


def _remove(connection: Connection, row: rows.Tenant) -> None:
    terms.forget(connection, row.id)
    pseudonym_keys.forget(connection, row.id)


RESOURCE: Final = Resource(
    plural="tenants",
    singular="tenant",
    records=tenants.RECORDS,
    body=Tenant,
    view=TenantView,
    page=TenantPage,
    build=_build,
    show=_show,
    in_use=lambda connection, row: tenants.in_use(connection, row.id),
    taken="a tenant of this name",
    reads=Right.ORGANISATION_READ,
    changes=Right.TENANTS_CHANGE,
    manages=Right.TENANTS_MANAGE,
    reserved=_reserved,
    remove=_remove,
    entails=_entails,
    opened=lambda deps, row, _facts: opening.open_accounts(deps, row),
)
