"""Alerts that were told, and the channels that are told: signed webhooks for a scope's budgets."""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import Connection

from billing import money
from billing.alerts import RULES, Rule
from gateway import clock, ids
from gateway.admin import fields, scoped
from gateway.admin.deps import AdminDeps
from gateway.admin.operation import Answer, Call, Filter, Operation, Page
from gateway.admin.problems import invalid, missing, together
from gateway.admin.resource import Resource, filters, page, page_of
from gateway.admin.roles import Right
from gateway.stores.sql import alerts, tenants

Secret = Annotated[
    str,
    Meta(
        min_length=16,
        max_length=256,
        pattern=r"^[\x21-\x7e]+$",
        extra={
            "rule": "a secret of 16 to 256 printable ASCII characters without spaces",
            "secret": True,
        },
    ),
]
Url = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=2048,
        extra={"rule": "a URL such as https://hooks.example.com/meterhouse"},
    ),
]


class Channel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Is told of the budgets and the spending at its scope and below. `secret` signs what is sent;
    it is write-only and left out of a PUT it stays. `least_amount` is for speed, anomalies and
    loops: less is not told.
    """

    name: fields.Name
    scope: fields.Scope
    url: Url
    secret: Secret | UnsetType = UNSET
    rules: Annotated[tuple[Rule, ...], Meta(min_length=1, max_length=len(RULES))] = RULES
    least_amount: fields.Decimal = "1"


class ChannelView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tenant_id: str
    name: str
    scope: fields.Scope
    url: str
    rules: tuple[str, ...]
    least_amount: str
    created_at: str


class AlertPage(Page, frozen=True, forbid_unknown_fields=True):
    tenant_id: Filter | None = None
    budget_id: Filter | None = None
    rule: Rule | None = None


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: waiting (for `next_at`), delivered or given_up (at `ended_at`)."""

    channel_id: str
    state: str
    attempts: int
    next_at: str | None
    ended_at: str | None
    fault: str | None


class AlertView(msgspec.Struct, frozen=True, kw_only=True):
    """`amount` is what was spent or is foreseen, `expected` what was planned or allowed."""

    id: str
    tenant_id: str
    scope: fields.Scope
    budget_id: str | None  # null: it is of no budget
    window_id: str
    rule: str
    mark: str
    amount: str
    expected: str
    cap: str
    currency: str
    message: str
    remedy: str
    link: str
    fired_at: str
    deliveries: tuple[DeliveryView, ...]


def _build(
    connection: Connection, deps: AdminDeps, body: Channel, before: alerts.Channel | None
) -> alerts.Channel:
    kind, scope_id, tenant_id = scoped.place(connection, body.scope, before)
    tenant = tenants.RECORDS.one(connection, id=tenant_id)
    if tenant is None:
        raise invalid("scope", f"there is no tenant {tenant_id!r}")
    if before is None and body.secret is UNSET:
        remedy = "send one, and keep it where the webhook checks signatures"
        raise invalid("secret", "a new channel needs it", remedy)
    together(
        lambda: fields.base_url(body.url, "url"),
        lambda: fields.distinct(body.rules, "rules"),
        lambda: fields.checked(
            "least_amount", money.parse_counter, body.least_amount, tenant.currency
        ),
    )
    channel_id = ids.new("channel") if before is None else before.id
    sealed = before.secret_sealed if before is not None else b""
    if body.secret is not UNSET:
        sealed = deps.sealer.seal(channel_id, body.secret)
    return alerts.Channel(
        id=channel_id,
        tenant_id=tenant_id,
        scope_kind=kind,
        scope_id=scope_id,
        name=body.name,
        url=fields.base_url(body.url, "url"),
        secret_sealed=sealed,
        rules=tuple(each for each in RULES if each in body.rules),
        least_amount=body.least_amount,
        version=1 if before is None else before.version,
        created_at_us=clock.now_us() if before is None else before.created_at_us,
    )


async def _show(_deps: AdminDeps, row: alerts.Channel, _facts: None) -> ChannelView:
    return ChannelView(
        id=row.id,
        tenant_id=row.tenant_id,
        name=row.name,
        scope=fields.scope_of(row.scope_kind, row.scope_id),
        url=row.url,
        rules=row.rules,
        least_amount=row.least_amount,
        created_at=clock.rfc3339(row.created_at_us),
    )


async def _list(call: Call) -> Answer:
    where, size = filters(call.query), call.query.limit

    def work(connection: Connection) -> list[AlertView]:
        only = call.visible(connection, "alerts")
        found = alerts.RECORDS.page(
            connection, where, call.query.cursor, size + 1, only, descending=call.query.descending
        )
        return [_view(connection, each) for each in found]

    found = await call.read(work)
    return Answer(page(found[:size], found, size))


async def _read(call: Call) -> Answer:
    def work(connection: Connection) -> AlertView:
        found = alerts.RECORDS.one(connection, id=call.id)
        if found is None:
            raise missing("alert", call.id)
        return _view(connection, found)

    return Answer(await call.read(work))


def _view(connection: Connection, row: alerts.Alert) -> AlertView:
    told: Sequence[alerts.Delivery] = alerts.DELIVERIES.all(connection, alert_id=row.id)
    given = {name: getattr(row, name) for name in _COPIED}
    return AlertView(
        scope=fields.scope_of(row.scope_kind, row.scope_id),
        budget_id=row.budget_id or None,
        fired_at=clock.rfc3339(row.fired_at_us),
        deliveries=tuple(map(_delivery, told)),
        **given,
    )


_COPIED: Final = tuple(
    name
    for name in AlertView.__struct_fields__
    if name not in {"scope", "budget_id", "fired_at", "deliveries"}
)


def _delivery(row: alerts.Delivery) -> DeliveryView:
    waiting = row.state == alerts.WAITING
    return DeliveryView(
        channel_id=row.channel_id,
        state=row.state,
        attempts=row.attempts,
        next_at=clock.rfc3339(row.next_at_us) if waiting else None,
        ended_at=fields.shown_instant(row.ended_at_us),
        fault=row.fault,
    )


CHANNELS: Final = Resource(
    plural="alert-channels",
    singular="alert channel",
    records=alerts.CHANNELS,
    body=Channel,
    view=ChannelView,
    page=scoped.ScopedPage,
    build=_build,
    show=_show,
    in_use=lambda _connection, _row: None,
    taken="an alert channel of this name for this scope",
    reads=Right.ALERTS_READ,
    changes=Right.ALERTS_CHANGE,
)


def operations() -> list[Operation]:
    return [
        *CHANNELS.operations(),
        Operation(
            "GET", "/alerts", "alerts", "List alerts that were told", _list,
            right=Right.ALERTS_READ, query=AlertPage, answers=page_of(AlertView),
        ),
        Operation(
            "GET", "/alerts/{id}", "alerts", "Read an alert and its deliveries", _read,
            right=Right.ALERTS_READ, answers=AlertView, refusals=(404,),
        ),
    ]  # fmt: skip
