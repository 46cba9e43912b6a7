"""Records of decisions that were kept for as long as METERHOUSE_DECISION_DAYS says."""

import asyncio
import logging
from typing import Final

from gateway import clock
from gateway.jobs.deps import JobDeps
from gateway.stores.sql import retirement

EVERY_S: Final = 3_600.0
_DAY_US: Final = 86_400_000_000

_LOG: Final = logging.getLogger(__name__)


async def run(deps: JobDeps, stopping: asyncio.Event) -> None:
    """Until none is left whose time is over. Zero days: they are kept for ever."""
    if deps.decision_days == 0:
        return
    now_us = clock.now_us()
    before_us = now_us - deps.decision_days * _DAY_US
    name = f"retire_decisions {deps.decision_days} days"
    while not stopping.is_set():
        went = await asyncio.to_thread(retirement.retire, deps.engine, before_us, now_us, name)
        for each in went:
            _LOG.info(
                "%d decisions of chain %s, up to block %d, are over %d days old: removed",
                each.records, each.chain, each.last_block, deps.decision_days,
            )  # fmt: skip
        if not went:
            return
