"""Alerts and blocks of keys that were kept for as long as METERHOUSE_ALERT_DAYS says."""

import asyncio
import logging
from typing import Final

from gateway import clock
from gateway.jobs.deps import JobDeps
from gateway.stores.sql import retention

EVERY_S: Final = 3_600.0
_DAY_US: Final = 86_400_000_000

_LOG: Final = logging.getLogger(__name__)


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """Until none is left whose time is over. Zero days: they are kept for ever."""
    if deps.alert_days == 0:
        return
    now_us = clock.now_us()
    before_us = now_us - deps.alert_days * _DAY_US
    name = f"retire_alerts {deps.alert_days} days"
    while not stopping.is_set():
        step = asyncio.to_thread(retention.forget_alerts, deps.engine, before_us, now_us, name)
        gone = await step
        if gone is None:
            return
        _LOG.info(
            "%d alerts and %d blocks of keys are over %d days old: removed",
            gone.alerts, gone.blocks, deps.alert_days,
        )  # fmt: skip
