"""Alerts: each is kept once, with a delivery for every channel that is to be told.

A delivery is claimed by moving the time of its next attempt: whoever moved it makes the attempt,
and where he dies, the time comes again. So a webhook may hear of an alert twice, under one id.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, select, update

from gateway.stores.sql.alert_tables import alert_channels, alert_deliveries, alerts
from gateway.stores.sql.records import Records

WAITING: Final = "waiting"
DELIVERED: Final = "delivered"
GIVEN_UP: Final = "given_up"


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook that is told of the budgets at its scope and below."""

    id: str
    tenant_id: str
    scope_kind: str
    scope_id: str
    name: str
    url: str
    secret_sealed: bytes
    rules: tuple[str, ...]  # of billing.alerts.RULES
    least_amount: str  # decimal, in the tenant's currency: what is below is told to nobody
    version: int = 1
    created_at_us: int = 0


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts are exact decimals of `currency`. What is of no budget has "" for its id, and is told
    once by its window, rule, mark and cap.
    """

    id: str
    tenant_id: str
    scope_kind: str
    scope_id: str
    budget_id: str
    window_id: str
    rule: str
    mark: str
    cap: str
    amount: str
    expected: str
    currency: str
    message: str
    remedy: str
    link: str
    fired_at_us: int


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    alert_id: str
    channel_id: str
    state: str = WAITING
    attempts: int = 0
    next_at_us: int
    ended_at_us: int | None = None
    fault: str | None = None


CHANNELS: Final = Records(alert_channels, Channel)
RECORDS: Final = Records(alerts, Alert)
DELIVERIES: Final = Records(alert_deliveries, Delivery)


def told(
    connection: Connection, tenant_id: str, window_ids: Collection[str]
) -> dict[tuple[str, str], list[Alert]]:
    """What was told of a tenant's budgets in these windows, by budget and window."""
    of = alerts.c
    query = select(alerts).where(of.tenant_id == tenant_id, of.window_id.in_(list(window_ids)))
    found: dict[tuple[str, str], list[Alert]] = {}
    for alert in RECORDS.rows(connection.execute(query).mappings().all()):
        found.setdefault((alert.budget_id, alert.window_id), []).append(alert)
    return found


def of_no_budget(connection: Connection, tenant_id: str, since_us: int) -> Sequence[Alert]:
    """What was told of a tenant's spending, and of no budget of it; in the order it was."""
    of = alerts.c
    query = select(alerts).where(of.tenant_id == tenant_id, of.budget_id == "")
    found = connection.execute(query.where(of.fired_at_us >= since_us).order_by(of.fired_at_us))
    return RECORDS.rows(found.mappings().all())


def fire(connection: Connection, alert: Alert, channels: Iterable[str]) -> None:
    """Keeps the alert and what is to be delivered. TakenError: somebody was quicker."""
    RECORDS.add(connection, alert)
    for channel_id in channels:
        DELIVERIES.add(
            connection,
            Delivery(alert_id=alert.id, channel_id=channel_id, next_at_us=alert.fired_at_us),
        )


def due(connection: Connection, now_us: int, most: int) -> Sequence[Delivery]:
    """Deliveries whose time has come, the longest due first."""
    of = alert_deliveries.c
    query = select(alert_deliveries).where(of.state == WAITING, of.next_at_us <= now_us)
    found = connection.execute(query.order_by(of.next_at_us, of.alert_id).limit(most))
    return DELIVERIES.rows(found.mappings().all())


def claim(connection: Connection, delivery: Delivery, until_us: int) -> Delivery | None:
    """The delivery for one attempt; None when it is another's by now. It is due again at
    `until_us`, unless `ended` says otherwise.
    """
    of = alert_deliveries.c
    attempts = delivery.attempts + 1
    statement = (
        update(alert_deliveries)
        .where(
            of.alert_id == delivery.alert_id,
            of.channel_id == delivery.channel_id,
            of.state == WAITING,
            of.attempts == delivery.attempts,
            of.next_at_us == delivery.next_at_us,
        )
        .values(attempts=attempts, next_at_us=until_us)
    )
    if connection.execute(statement).rowcount != 1:
        return None
    return msgspec.structs.replace(delivery, attempts=attempts, next_at_us=until_us)


def attempted(
    connection: Connection, delivery: Delivery, state: str, fault: str | None, now_us: int
) -> None:
    """How a claimed attempt went."""
    ended_at_us = None if state == WAITING else now_us
    of = alert_deliveries.c
    connection.execute(
        update(alert_deliveries)
        .where(of.alert_id == delivery.alert_id, of.channel_id == delivery.channel_id)
        .where(of.attempts == delivery.attempts)
        .values(
            state=state,
            fault=fault,
            ended_at_us=ended_at_us,
            next_at_us=delivery.next_at_us,
        )
    )
