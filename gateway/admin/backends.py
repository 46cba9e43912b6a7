"""Backends: where requests may go. The credential goes in and never comes out."""

from functools import partial
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from billing.tco import Profile
from gateway import clock, ids
from gateway.admin import fields, tco
from gateway.admin.deps import AdminDeps
from gateway.admin.operation import Filter, Page
from gateway.admin.problems import invalid, together
from gateway.admin.resource import Resource
from gateway.admin.roles import Right
from gateway.admin.tco import Tco
from gateway.stores.sql import backends, rows
from policies import residency

Jurisdiction = Annotated[
    str,
    Meta(
        min_length=2,
        max_length=20,
        pattern=r"^[A-Z]{2,3}(@[0-9-]+)?$",
        extra={"rule": "a country code such as DE, or EU or EEA"},
    ),
]
DataClass = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=32,
        pattern=r"^[a-z][a-z0-9_]*$",
        extra={"rule": "a word such as personal or health"},
    ),
]
Credential = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=4096,
        pattern=r"^[\x21-\x7e]+$",
        extra={
            "rule": "a secret of printable ASCII characters without spaces",
            "secret": True,
        },
    ),
]
BaseUrl = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=2048,
        extra={"rule": "a URL such as https://inference.example.com/v1"},
    ),
]
Millis = Annotated[int, Meta(ge=1, le=86_400_000)]


class Backend(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`credential` is write-only: left out of a PUT it stays, null takes it away.
    `tco_effective_from`: since when the box costs what its `tco` says; left out, from when that is
    written on, and as it is where the `tco` stays the same; null without one. Its cost prices never
    begin before they are written.
    """

    name: fields.Name
    dialect: Literal["openai"] = "openai"
    base_url: BaseUrl
    region: fields.Slug
    jurisdictions: Annotated[tuple[Jurisdiction, ...], Meta(max_length=300)] = ()
    data_classes: Annotated[tuple[DataClass, ...], Meta(max_length=64)] = ()
    placement: Literal["cloud", "edge", "on_prem", "workstation"] = "cloud"
    credential: Credential | UnsetType | None = UNSET
    max_concurrency: Annotated[int, Meta(ge=1, le=10**6)] | None = None
    provider: fields.Slug | None = None
    trusted: bool = False
    on_disconnect: Literal["abort", "drain"] = "abort"
    connect_timeout_ms: Millis = 2_000
    first_byte_timeout_ms: Millis = 120_000
    idle_timeout_ms: Millis = 60_000
    total_timeout_ms: Millis = 1_800_000
    tco: Tco | None = None
    tco_effective_from: fields.Instant | None = None


class BackendView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    dialect: str
    base_url: str
    region: str
    jurisdictions: tuple[str, ...]
    data_classes: tuple[str, ...]
    placement: str
    has_credential: bool
    max_concurrency: int | None
    provider: str | None
    trusted: bool
    on_disconnect: str
    connect_timeout_ms: int
    first_byte_timeout_ms: int
    idle_timeout_ms: int
    total_timeout_ms: int
    tco: Profile | None
    tco_effective_from: str | None
    created_at: str


class BackendPage(Page, frozen=True, forbid_unknown_fields=True):
    name: Filter | None = None
    region: Filter | None = None
    placement: Filter | None = None


_COPIED: Final = tuple(
    name
    for name in Backend.__struct_fields__
    if name
    not in {
        *("credential", "base_url", "jurisdictions", "data_classes", "tco", "tco_effective_from"),
    }
)


def _build(
    _connection: Connection, deps: AdminDeps, body: Backend, before: rows.Backend | None
) -> rows.Backend:
    together(
        *(partial(_jurisdiction, name, at) for at, name in enumerate(body.jurisdictions)),
        lambda: fields.distinct(body.jurisdictions, "jurisdictions"),
        lambda: fields.distinct(body.data_classes, "data_classes"),
        lambda: fields.base_url(body.base_url),
        lambda: tco.resolved(body.tco),
        lambda: _given_us(body),
    )
    if before is None:
        before = rows.Backend(
            id=ids.new("backend"),
            name="",
            dialect="",
            base_url="",
            region="",
            created_at_us=clock.now_us(),
        )
    profile = tco.resolved(body.tco)
    given_us = _given_us(body)
    same = profile == before.tco and before.tco_from_us is not None
    counts_us = before.tco_from_us if same else clock.now_us()
    return msgspec.structs.replace(
        before,
        base_url=fields.base_url(body.base_url),
        jurisdictions=tuple(sorted(body.jurisdictions)),
        data_classes=tuple(sorted(body.data_classes)),
        credential_sealed=_sealed(deps, body, before),
        tco=profile,
        tco_from_us=None if profile is None else given_us or counts_us,
        **{name: getattr(body, name) for name in _COPIED},
    )


def _given_us(body: Backend) -> int | None:
    given = body.tco_effective_from
    return None if given is None else fields.instant(given, "tco_effective_from")


def _jurisdiction(name: str, position: int) -> None:
    fault = residency.fault(name)
    if fault is not None:
        raise invalid(f"jurisdictions[{position}]", fault)


def _sealed(deps: AdminDeps, body: Backend, before: rows.Backend) -> bytes | None:
    if body.credential is UNSET:
        return before.credential_sealed
    if body.credential is None:
        return None
    return deps.sealer.seal(before.id, body.credential)


async def _show(_deps: AdminDeps, row: rows.Backend, _facts: None) -> BackendView:
    return BackendView(
        id=row.id,
        base_url=row.base_url,
        jurisdictions=row.jurisdictions,
        data_classes=row.data_classes,
        has_credential=row.credential_sealed is not None,
        tco=row.tco,
        tco_effective_from=fields.shown_instant(row.tco_from_us),
        created_at=clock.rfc3339(row.created_at_us),
        **{name: getattr(row, name) for name in _COPIED},
    )


RESOURCE: Final = Resource(
    plural="backends",
    singular="backend",
    records=backends.RECORDS,
    body=Backend,
    view=BackendView,
    page=BackendPage,
    build=_build,
    show=_show,
    in_use=lambda connection, row: backends.in_use(connection, row.id),
    taken="a backend of this name",
    reads=Right.CATALOGUE_READ,
    changes=Right.CATALOGUE_CHANGE,
    entails=tco.book,
)
