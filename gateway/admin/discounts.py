"""Discounts: what a tenant pays less than the list. One that has begun stays until a later one."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from billing.discounts import is_odd, parse_percent
from billing.meters import Meter
from gateway import clock, ids
from gateway.admin import approving, dated, fields
from gateway.admin.approving import Approving
from gateway.admin.deps import AdminDeps
from gateway.admin.operation import Filter, Operation, Page
from gateway.admin.problems import conflict, invalid
from gateway.admin.resource import Resource
from gateway.admin.roles import Right
from gateway.stores.sql import discounts, models, rows, tenants

Percent = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,3}(\.[0-9]{1,4})?$",
        description="exact; 0 ends what went before",
        extra={"rule": 'percent of at most 4 decimals such as "12.5"'},
    ),
]


class Discount(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Off the list prices in force, from `effective_from` until the next one of the same model and
    meter begins. They do not add up: the one that names the model goes first, then the one that
    names the meter. A tenant's contract prices, and charges that follow from a cost, stay as they
    are. `state` left out: POST makes an approved one; one of over 50 percent is drafted, and
    approved by somebody else.
    """

    tenant_id: fields.Id
    percent: Percent
    model: fields.ModelName | None = None  # every model
    meter: Meter | None = None  # every meter
    effective_from: fields.Instant | None = None  # now
    state: Literal["draft", "approved"] | None = None


class DiscountView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant_id: str
    percent: str
    model: str | None
    meter: str | None
    effective_from: str
    state: str
    created_at: str
    warnings: tuple[str, ...] = ()


class DiscountPage(Page, frozen=True, forbid_unknown_fields=True):
    tenant_id: Filter | None = None
    model: Filter | None = None
    meter: Meter | None = None
    state: Literal["draft", "approved"] | None = None


def _build(
    connection: Connection, _deps: AdminDeps, body: Discount, before: rows.Discount | None
) -> rows.Discount:
    if not tenants.RECORDS.exists(connection, id=body.tenant_id):
        raise invalid("tenant_id", f"there is no tenant {body.tenant_id!r}")
    fields.checked("percent", parse_percent, body.percent)
    now_us = clock.now_us()
    discount = rows.Discount(
        id=ids.new("discount") if before is None else before.id,
        tenant_id=body.tenant_id,
        percent=body.percent,
        model=body.model,
        meter=None if body.meter is None else body.meter.value,
        effective_from_us=_effective_from(body, before, now_us),
        state=approving.written_state(body.state, before, "discount", "discounts"),
        drafted_by=None if before is None else before.drafted_by,
        approved_by=None if before is None else before.approved_by,
        version=1 if before is None else before.version,
        created_at_us=now_us if before is None else before.created_at_us,
    )
    if before is not None and discount != before:
        _check_not_begun(connection, before)
    if discount.state == "approved":
        _check_alone(connection, discount)
        if discount != before and (told := _odd(connection, discount)) is not None:
            raise invalid("percent", told, approving.by_a_colleague("discounts"))
    return discount


def _odd(_connection: Connection, discount: rows.Discount) -> str | None:
    if not is_odd(parse_percent(discount.percent)):
        return None
    return f"{discount.percent} percent is more than half of the price"


def _check_alone(connection: Connection, discount: rows.Discount) -> None:
    twin = discounts.twin(connection, discount)
    if twin is not None:
        raise conflict(
            "already_exists", f"{twin.id} is a discount on the same from the same instant on"
        )


def _effective_from(body: Discount, before: rows.Discount | None, now_us: int) -> int:
    if body.effective_from is not None:
        return fields.instant(body.effective_from, "effective_from")
    return now_us if before is None else before.effective_from_us


def _check_not_begun(_connection: Connection, discount: rows.Discount) -> None:
    """What was in force once is part of the books."""
    if discount.state == "approved" and discount.effective_from_us <= clock.now_us():
        raise conflict(
            "immutable",
            f"the discount is in force since {clock.rfc3339(discount.effective_from_us)} and stays;"
            ' a later one takes its place, one of "0" ends it',
        )


def _unknown(connection: Connection, row: rows.Discount) -> tuple[str, ...]:
    """A model may come later; a name that was mistyped never does."""
    if row.model is None or models.RECORDS.exists(connection, name=row.model):
        return ()
    return (f"there is no model {row.model!r}: until there is one, nothing is taken off",)


async def _show(_deps: AdminDeps, row: rows.Discount, unknown: tuple[str, ...]) -> DiscountView:
    return DiscountView(
        id=row.id,
        tenant_id=row.tenant_id,
        percent=row.percent,
        model=row.model,
        meter=row.meter,
        effective_from=clock.rfc3339(row.effective_from_us),
        state=row.state,
        created_at=clock.rfc3339(row.created_at_us),
        warnings=(*unknown, *dated.warnings(row.effective_from_us, row.created_at_us)),
    )


RESOURCE: Final = Resource(
    plural="discounts",
    singular="discount",
    records=discounts.RECORDS,
    body=Discount,
    view=DiscountView,
    page=DiscountPage,
    build=_build,
    show=_show,
    facts=_unknown,
    in_use=lambda _connection, _row: None,
    taken="such a discount",
    reads=Right.PRICES_READ,
    changes=Right.PRICES_CHANGE,
    remove=_check_not_begun,
    entails=approving.signed(discounts.RECORDS),
)


APPROVING: Final = Approving(RESOURCE, _odd, _check_alone)


def operations() -> list[Operation]:
    return [*RESOURCE.operations(), APPROVING.operation()]
