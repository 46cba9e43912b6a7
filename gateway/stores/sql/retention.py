"""What is kept for a time only: alerts with their deliveries, and blocks of keys that are over.

Usage is not among it: what is booked is sealed, and stays. Nor is an alert by which it is known
that somebody was told: without it he would be told again. Each step is told in the audit chain, in
its own transaction.
"""

from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, exists, or_, select

from billing.anomalies import QUIET_US
from billing.periods import PERIODS, window
from gateway.stores.sql import audit
from gateway.stores.sql.alert_tables import alert_deliveries, alerts
from gateway.stores.sql.breaker_tables import key_blocks
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.tables import budgets, tenants

AT_ONCE: Final = 2_000  # rows of a kind in a transaction: who writes waits for no more


class Gone(msgspec.Struct, frozen=True):
    """What went in one step, from before when."""

    alerts: int
    blocks: int
    before_us: int


def forget_alerts(engine: Engine, before_us: int, now_us: int, operation: str) -> Gone | None:
    """Some of what was told, or ended, before; None once there is no more."""
    with transaction(engine) as connection:
        gone = Gone(
            _alerts(connection, before_us, now_us), _blocks(connection, before_us), before_us
        )
        if not gone.alerts and not gone.blocks:
            return None
        audit.append(connection, [_entry(gone, now_us, operation)])
        return gone


def _alerts(connection: Connection, before_us: int, now_us: int) -> int:
    of = alerts.c
    old = of.fired_at_us < before_us, ~_needed(connection, now_us)
    query = select(of.id).where(*old).limit(AT_ONCE)
    found = connection.execute(query).scalars().all()
    if found:
        mine = alert_deliveries.c.alert_id.in_(found)
        connection.execute(delete(alert_deliveries).where(mine))
        connection.execute(delete(alerts).where(of.id.in_(found)))
    return len(found)


def _needed(connection: Connection, now_us: int) -> ColumnElement[bool]:
    """Told once a window, which may be `total` and never end; of no budget, once in a while."""
    of = alerts.c
    zones = {ZoneInfo(name) for name in connection.scalars(select(tenants.c.timezone).distinct())}
    lasting = {window(period, zone, now_us).id for period in PERIODS for zone in zones}
    of_budget = exists().where(budgets.c.id == of.budget_id)
    return or_(
        and_(of_budget, of.window_id.in_(sorted(lasting))),
        and_(of.budget_id == "", of.fired_at_us >= now_us - QUIET_US),
    )


def _blocks(connection: Connection, before_us: int) -> int:
    of = key_blocks.c
    over = select(of.id).where(of.until_us < before_us).order_by(of.until_us).limit(AT_ONCE)
    return connection.execute(delete(key_blocks).where(of.id.in_(over))).rowcount


def _entry(gone: Gone, now_us: int, operation: str) -> audit.Entry:
    return audit.Entry(
        at_us=now_us,
        actor_id="jobs",
        actor_name="jobs",
        role="system",
        operation=operation,
        noun="alerts",
        object_id="",
        after=msgspec.json.encode(gone).decode(),
        address="",
        request_id="",
    )
