"""The catalogue: what clients ask for, and the backends that serve it."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.money import parse_decimal
from gateway import clock, ids
from gateway.admin import fields
from gateway.admin.deps import AdminDeps
from gateway.admin.operation import Filter, Page
from gateway.admin.problems import invalid
from gateway.admin.resource import Resource
from gateway.stores.sql import backends, models, rows

Capability = Literal[
    "chat", "completions", "embeddings", "tools", "json_schema", "vision", "audio", "reasoning"
]
Tokens = Annotated[int, Meta(ge=1, le=100_000_000)]
Factor = Annotated[str, Meta(max_length=30, pattern=r"^[0-9]{1,4}(\.[0-9]{1,6})?$")]


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
    targets = tuple(
        _target(connection, target, position) for position, target in enumerate(body.targets)
    )
    if len({(target.backend_id, target.upstream_model) for target in targets}) < len(targets):
        raise invalid("targets", "the same upstream model of one backend is given twice")
    fields.distinct(body.capabilities, "capabilities")
    if parse_decimal(body.bytes_factor, 6) == 0:
        raise invalid("bytes_factor", "a prompt of bytes is at least some tokens")
    window = body.context_window
    if window is not None and (body.max_output_tokens or 0) > window:
        raise invalid("max_output_tokens", f"more than the context window of {window}")
    if before is None:
        before = rows.Model(id=ids.new("model"), name="", targets=(), created_at_us=clock.now_us())
    return msgspec.structs.replace(
        before, targets=targets, **{name: getattr(body, name) for name in _COPIED}
    )


def _target(connection: Connection, target: Target, position: int) -> rows.Target:
    if not backends.RECORDS.exists(connection, id=target.backend_id):
        raise invalid(
            f"targets[{position}].backend_id", f"there is no backend {target.backend_id!r}"
        )
    return rows.Target(
        backend_id=target.backend_id, upstream_model=target.upstream_model, weight=target.weight
    )


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
)
