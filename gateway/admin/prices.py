"""Prices: dated versions. A draft may change; an approved one ends when a later one begins."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.meters import Meter
from billing.service_tiers import ServiceTier
from gateway import clock, ids
from gateway.admin import approving, dated, fields
from gateway.admin.approving import Approving
from gateway.admin.deps import AdminDeps
from gateway.admin.odd_prices import odd
from gateway.admin.operation import Filter, Operation, Page
from gateway.admin.problems import conflict, invalid, together
from gateway.admin.resource import Resource
from gateway.admin.roles import Right
from gateway.stores.sql import backends, prices, rows, tenants

PerMillion = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$",
        description="exact; 6 decimals at most",
        extra={"rule": 'an exact amount of at most 6 decimals such as "12.50"'},
    ),
]


class TierPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the meter costs beyond so many tokens: of a prompt, cached ones too, or of a month."""

    above_tokens: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    amount_per_million: PerMillion


ContextTiers = Annotated[
    tuple[TierPrice, ...],
    Meta(max_length=8, description="by rising size; a request is in one tier as a whole"),
]


class QuantityTiers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """By the tokens of this price that a tenant uses in a month of its calendar. `graduated`: each
    token has the price of the tier it falls in; `volume`: all have that of the tier reached.
    """

    mode: Literal["graduated", "volume"]
    tiers: Annotated[tuple[TierPrice, ...], Meta(min_length=1, max_length=16)]


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`charge` by model, for everyone or one tenant; `cost` by backend_id and upstream_model.

    `state` left out: POST makes an approved price, PUT leaves it as it is. Only `approve` approves.
    """

    book: Literal["charge", "cost"]
    meter: Meter
    service_tier: ServiceTier = ServiceTier.STANDARD  # that a request asks for, or is served in
    amount_per_million: PerMillion
    context_tiers: ContextTiers = ()
    quantity_tiers: QuantityTiers | None = None  # of a charge without context_tiers
    currency: fields.Currency
    effective_from: fields.Instant | None = None  # now
    model: fields.ModelName | None = None
    tenant_id: fields.Id | None = None
    backend_id: fields.Id | None = None
    upstream_model: fields.Name | None = None
    state: Literal["draft", "approved"] | None = None


class PriceView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    book: str
    model: str | None
    tenant_id: str | None
    backend_id: str | None
    upstream_model: str | None
    meter: str
    service_tier: str
    amount_per_million: str
    context_tiers: ContextTiers
    quantity_tiers: QuantityTiers | None
    currency: str
    effective_from: str
    state: str
    source: str
    created_at: str
    warnings: tuple[str, ...] = ()


class PricePage(Page, frozen=True, forbid_unknown_fields=True):
    book: Literal["charge", "cost"] | None = None
    model: Filter | None = None
    tenant_id: Filter | None = None
    backend_id: Filter | None = None
    upstream_model: Filter | None = None
    meter: Meter | None = None
    service_tier: ServiceTier | None = None
    state: Literal["draft", "approved"] | None = None


def _build(
    connection: Connection, _deps: AdminDeps, body: Price, before: rows.Price | None
) -> rows.Price:
    _check_subject(connection, body)
    now_us = clock.now_us()
    price = rows.Price(
        id=ids.new("price") if before is None else before.id,
        book=body.book,
        model=body.model,
        tenant_id=body.tenant_id,
        backend_id=body.backend_id,
        upstream_model=body.upstream_model,
        meter=body.meter.value,
        service_tier=body.service_tier.value,
        amount_per_million=body.amount_per_million,
        context_tiers=msgspec.convert(
            msgspec.to_builtins(body.context_tiers), tuple[rows.TierPrice, ...]
        ),
        quantity_tiers=msgspec.convert(
            msgspec.to_builtins(body.quantity_tiers), rows.QuantityTiers | None
        ),
        currency=body.currency,
        effective_from_us=_effective_from(body, before, now_us),
        state=approving.written_state(body.state, before, "price", "prices"),
        source="manual" if before is None else before.source,
        version=1 if before is None else before.version,
        drafted_by=None if before is None else before.drafted_by,
        approved_by=None if before is None else before.approved_by,
        created_at_us=now_us if before is None else before.created_at_us,
    )
    if before is not None and before.state == "approved" and price != before:
        raise conflict("immutable", "an approved price never changes; make one that follows it")
    if price.state == "approved":
        _check_alone(connection, price)
        if before is None:
            _check_odd(connection, price)
    return price


def _check_odd(connection: Connection, price: rows.Price) -> None:
    """Nobody puts a mistaken unit in force with one call."""
    told = odd(connection, price)
    if told is not None:
        remedy = f"{approving.DRAFT_IT}, look at it, and POST /admin/v1/prices/{{id}}/approve"
        raise invalid("amount_per_million", told, remedy)


def _effective_from(body: Price, before: rows.Price | None, now_us: int) -> int:
    if body.effective_from is not None:
        return fields.instant(body.effective_from, "effective_from")
    return now_us if before is None else before.effective_from_us


def _check_subject(connection: Connection, body: Price) -> None:
    charge = body.book == "charge"
    needed = ("model",) if charge else ("backend_id", "upstream_model")
    foreign = ("backend_id", "upstream_model") if charge else ("model", "tenant_id")
    together(
        *(partial(_check_given, body, field, True) for field in needed),
        *(partial(_check_given, body, field, False) for field in foreign),
        lambda: _check_backend(connection, body),
        lambda: _check_tenant(connection, body),
        lambda: fields.currency(body.currency),
        lambda: _check_rising("context_tiers", body.context_tiers),
        lambda: _check_quantities(body),
    )


def _check_rising(field: str, tiers: Sequence[TierPrice]) -> None:
    sizes = [tier.above_tokens for tier in tiers]
    if sizes != sorted(set(sizes)):
        raise invalid(field, "the tiers begin at rising sizes, each at one of its own")


def _check_quantities(body: Price) -> None:
    if body.quantity_tiers is None:
        return
    if body.book != "charge":
        raise invalid("quantity_tiers", "a cost price has none: what a request costs is known then")
    if body.context_tiers:
        raise invalid("quantity_tiers", "a price has tiers of one kind: by prompt, or by month")
    _check_rising("quantity_tiers.tiers", body.quantity_tiers.tiers)


def _check_given(body: Price, field: str, wanted: bool) -> None:
    if (getattr(body, field) is not None) != wanted:
        raise invalid(field, f"a {body.book} price {'needs it' if wanted else 'has none'}")


def _check_backend(connection: Connection, body: Price) -> None:
    if body.backend_id is not None and not backends.RECORDS.exists(connection, id=body.backend_id):
        raise invalid("backend_id", f"there is no backend {body.backend_id!r}")


def _check_tenant(connection: Connection, body: Price) -> None:
    if body.tenant_id is None:
        return
    tenant = tenants.RECORDS.one(connection, id=body.tenant_id)
    if tenant is None:
        raise invalid("tenant_id", f"there is no tenant {body.tenant_id!r}")
    if tenant.currency != body.currency:
        raise invalid("currency", f"the tenant's currency is {tenant.currency}")


def _check_alone(connection: Connection, price: rows.Price) -> None:
    twin = prices.twin(connection, price)
    if twin is not None:
        raise conflict(
            "already_exists",
            f"{twin.id} is a price for the same meter and service tier from the same instant on",
        )


async def _show(_deps: AdminDeps, row: rows.Price, _facts: Any) -> PriceView:
    return view(row)


def view(row: rows.Price) -> PriceView:
    """As the API shows it."""
    return PriceView(
        id=row.id,
        book=row.book,
        model=row.model,
        tenant_id=row.tenant_id,
        backend_id=row.backend_id,
        upstream_model=row.upstream_model,
        meter=row.meter,
        service_tier=row.service_tier,
        amount_per_million=row.amount_per_million,
        context_tiers=msgspec.convert(
            msgspec.to_builtins(row.context_tiers), tuple[TierPrice, ...]
        ),
        quantity_tiers=msgspec.convert(
            msgspec.to_builtins(row.quantity_tiers), QuantityTiers | None
        ),
        currency=row.currency,
        effective_from=clock.rfc3339(row.effective_from_us),
        state=row.state,
        source=row.source,
        created_at=clock.rfc3339(row.created_at_us),
        warnings=dated.warnings(row.effective_from_us, row.created_at_us),
    )


def _check_not_begun(_connection: Connection, price: rows.Price) -> None:
    """What was in force once is part of the books; a price that only will be may be withdrawn."""
    if price.state == "approved" and price.effective_from_us <= clock.now_us():
        raise conflict(
            "immutable",
            f"the price is in force since {clock.rfc3339(price.effective_from_us)} and stays; "
            "a later one takes its place",
        )


RESOURCE: Final = Resource(
    plural="prices",
    singular="price",
    records=prices.RECORDS,
    body=Price,
    view=PriceView,
    page=PricePage,
    build=_build,
    show=_show,
    in_use=lambda _connection, _row: None,
    taken="such a price",
    reads=Right.PRICES_READ,
    changes=Right.PRICES_CHANGE,
    remove=_check_not_begun,
    entails=approving.signed(prices.RECORDS),
)


APPROVING: Final = Approving(RESOURCE, odd, _check_alone)


def operations() -> list[Operation]:
    return [*RESOURCE.operations(), APPROVING.operation()]
