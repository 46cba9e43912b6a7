"""The catalogue: what clients ask for, and the backends that serve it."""

from functools import partial
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.money import parse_decimal
from gateway import clock, ids
from gateway.admin import fields
from gateway.admin.deps import AdminDeps
from gateway.admin.operation import Filter, Page
from gateway.admin.problems import invalid, together
from gateway.admin.resource import Resource
from gateway.admin.roles import Right
from gateway.stores.sql import backends, models, rows

Capability = Literal[
    "chat", "completions", "embeddings", "tools", "json_schema", "vision", "audio", "reasoning"
]
Tokens = Annotated[int, Meta(ge=1, le=100_000_000)]
Factor = Annotated[
    str,
    Meta(
        max_length=30,
        pattern=r"^[0-9]{1,4}(\.[0-9]{1,6})?$",
        extra={"rule": 'a decimal such as "1.25"'},
    ),
]


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    backend_id: fields.Id
    upstream_model: fields.Name
    weight: Annotated[int, Meta(ge=1, le=10_000)] = 1


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: fields.ModelName
    targets: Annotated[tuple[Target, ...], Meta(min_length=1, max_length=64)]
    capabilities: Annotated[tuple[Capability, ...], Meta(min_length=1, max_length=8)] = ("chat",)
    context_window: Tokens | None = None
    max_output_tokens: Tokens | None = None
    encoding: Literal["o200k_base", "cl100k_base"] = "o200k_base"
    bytes_factor: Factor = "1"
    image_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] = 2048
    markup: Factor = "1"


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    targets: tuple[Target, ...]
    capabilities: tuple[str, ...]
    context_window: int | None
    max_output_tokens: int | None
    encoding: str
    bytes_factor: str
    image_tokens: int
    markup: str
    created_at: str


class ModelPage(Page, frozen=True, forbid_unknown_fields=True):
    name: Filter | None = None


_COPIED: Final = tuple(name for name in Model.__struct_fields__ if name != "targets")


def _build(
    connection: Connection, _deps: AdminDeps, body: Model, before: rows.Model | None
) -> rows.Model:
    together(
        *(partial(_check_target, connection, *each) for each in enumerate(body.targets)),
        lambda: _check_targets(body.targets),
        lambda: fields.distinct(body.capabilities, "capabilities"),
        lambda: _check_factor(body.bytes_factor),
        lambda: _check_window(body.context_window, body.max_output_tokens),
    )
    targets = tuple(rows.Target(**msgspec.structs.asdict(target)) for target in body.targets)
    if before is None:
        before = rows.Model(id=ids.new("model"), name="", targets=(), created_at_us=clock.now_us())
    return msgspec.structs.replace(
        before, targets=targets, **{name: getattr(body, name) for name in _COPIED}
    )


def _check_target(connection: Connection, position: int, target: Target) -> None:
    if not backends.RECORDS.exists(connection, id=target.backend_id):
        raise invalid(
            f"targets[{position}].backend_id", f"there is no backend {target.backend_id!r}"
        )


def _check_targets(targets: tuple[Target, ...]) -> None:
    if len({(target.backend_id, target.upstream_model) for target in targets}) < len(targets):
        raise invalid("targets", "the same upstream model of one backend is given twice")


def _check_factor(bytes_factor: str) -> None:
    if parse_decimal(bytes_factor, 6) == 0:
        raise invalid("bytes_factor", "must be above 0: a prompt of bytes is at least some tokens")


def _check_window(window: int | None, output: int | None) -> None:
    if window is not None and (output or 0) > window:
        raise invalid("max_output_tokens", f"must be at most the context window, {window}")


async def _show(_deps: AdminDeps, row: rows.Model, _facts: None) -> ModelView:
    return ModelView(
        id=row.id,
        targets=tuple(Target(**msgspec.structs.asdict(target)) for target in row.targets),
        created_at=clock.rfc3339(row.created_at_us),
        **{name: getattr(row, name) for name in _COPIED},
    )


RESOURCE: Final = Resource(
    plural="models",
    singular="model",
    records=models.RECORDS,
    body=Model,
    view=ModelView,
    page=ModelPage,
    build=_build,
    show=_show,
    in_use=lambda _connection, _row: None,
    taken="a model of this name",
    reads=Right.CATALOGUE_READ,
    changes=Right.CATALOGUE_CHANGE,
)
