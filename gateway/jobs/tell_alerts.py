"""Delivers alerts to their webhooks: tried again while it fails, and given up after a day."""

import asyncio
import logging
from typing import Any, Final

import msgspec

from gateway import clock
from gateway.backends.webhook import Sender
from gateway.jobs.deps import JobDeps
from gateway.stores.sql import alerts
from gateway.stores.sql.engine import reading, transaction
from gateway.stores.sql.seal import Sealer, SealError

EVERY_S: Final = 5.0
WAITS_S: Final = (30, 120, 600, 3_600, 21_600, 64_800)  # after the first attempt, the second, ...

_AT_ONCE: Final = 16
_CLAIM_S: Final = 30  # longer than an attempt may take
_SECOND_US: Final = 1_000_000
_LOG: Final = logging.getLogger(__name__)


class Webhooks(msgspec.Struct, frozen=True):
    """What it takes to tell somebody: the way out, what opens the channels' secrets, and what links
    begin with.
    """

    sender: Sender
    sealer: Sealer
    admin_url: str = ""


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """What is due, some at a time. One that fails or hangs keeps the others waiting for no longer
    than its own patience.
    """
    if deps.webhooks is None:
        return
    while not stopping.is_set():
        due = await asyncio.to_thread(_due, deps)
        if not due:
            return
        await asyncio.gather(*(_deliver(deps, deps.webhooks, each) for each in due))


def _due(deps: JobDeps) -> list[alerts.Delivery]:
    now_us = clock.now_us()
    with reading(deps.engine) as connection:
        found = alerts.due(connection, now_us, _AT_ONCE)
    claimed = []
    for each in found:
        with transaction(deps.engine) as connection:
            mine = alerts.claim(connection, each, now_us + _CLAIM_S * _SECOND_US)
        if mine is not None:
            claimed.append(mine)
    return claimed


async def _deliver(deps: JobDeps, webhooks: Webhooks, delivery: alerts.Delivery) -> None:
    """One attempt. Cancelled in the middle, it counts as one and is made again."""
    alert, channel = await asyncio.to_thread(_read, deps, delivery)
    now_us = clock.now_us()
    if alert is None or channel is None:
        await asyncio.to_thread(_end, deps, delivery, alerts.GIVEN_UP, "the channel is gone")
        return
    try:
        secret = webhooks.sealer.unseal(channel.id, channel.secret_sealed)
    except SealError as unsealed:
        fault: str | None = str(unsealed)
    else:
        fault = await webhooks.sender.send(
            channel.url, secret, alert.id, message(alert, webhooks.admin_url), now_us // _SECOND_US
        )
    if fault is None:
        await asyncio.to_thread(_end, deps, delivery, alerts.DELIVERED, None)
    elif delivery.attempts > len(WAITS_S):
        _LOG.error("alert %s never reached channel %s: %s", alert.id, channel.name, fault)
        await asyncio.to_thread(_end, deps, delivery, alerts.GIVEN_UP, fault)
    else:
        again_us = now_us + WAITS_S[delivery.attempts - 1] * _SECOND_US
        waiting = msgspec.structs.replace(delivery, next_at_us=again_us)
        await asyncio.to_thread(_end, deps, waiting, alerts.WAITING, fault)


def message(alert: alerts.Alert, admin_url: str) -> bytes:
    """The body of an alert: the same bytes at every attempt. Its link can be opened as it is."""
    told: dict[str, Any] = {
        "id": alert.id,
        "type": _type(alert),
        "fired_at": clock.rfc3339(alert.fired_at_us),
        "tenant_id": alert.tenant_id,
        "scope": {alert.scope_kind: alert.scope_id},
        "budget_id": alert.budget_id or None,
        "mark": alert.mark,
        "amount": alert.amount,
        "expected": alert.expected,
        "cap": alert.cap,
        "currency": alert.currency,
        "message": alert.message,
        "remedy": alert.remedy,
        "link": f"{admin_url}{alert.link}",
    }
    return msgspec.json.encode(told)


def _read(
    deps: JobDeps, delivery: alerts.Delivery
) -> tuple[alerts.Alert | None, alerts.Channel | None]:
    with reading(deps.engine) as connection:
        return (
            alerts.RECORDS.one(connection, id=delivery.alert_id),
            alerts.CHANNELS.one(connection, id=delivery.channel_id),
        )


def _end(deps: JobDeps, delivery: alerts.Delivery, state: str, fault: str | None) -> None:
    with transaction(deps.engine) as connection:
        alerts.attempted(connection, delivery, state, fault, clock.now_us())


def _type(alert: alerts.Alert) -> str:
    if alert.rule == "ledger":
        return "ledger.fault"
    return f"{'budget' if alert.budget_id else 'spending'}.{alert.rule}"
