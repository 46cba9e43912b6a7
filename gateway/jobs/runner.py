"""Runs the jobs until told to stop. One that fails is tried again while the others go on."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from gateway.jobs import (
    drain_journal,
    open_accounts,
    prune,
    reap_holds,
    reap_leases,
    rebuild_counters,
    replay_spool,
    retire_decisions,
    tell_again,
)
from gateway.jobs.deps import JobDeps
from gateway.jobs.schedule import Job, causes, pause

LONGEST_WAIT_S: Final = 30.0
LAST_RUN_WITHIN_S: Final = 12.0  # below the supervisor's patience

_LOG: Final = logging.getLogger(__name__)


def jobs_for(hold_ms: int) -> tuple[Job, ...]:
    """Every job, as often as the life of a hold asks for."""
    hold_s = hold_ms / 1000
    return (
        Job("drain_journal", drain_journal.run, every_s=0.0, once_more=True),
        Job("rebuild_counters", rebuild_counters.run, every_s=rebuild_counters.EVERY_S),
        Job("open_accounts", open_accounts.run, every_s=open_accounts.EVERY_S),
        Job("replay_spool", replay_spool.run, every_s=hold_s / 15),
        Job("reap_holds", reap_holds.run, every_s=hold_s / 6),
        Job("reap_leases", reap_leases.run, every_s=hold_s / 3),
        Job("tell_again", tell_again.run, every_s=hold_s),
        Job("prune", prune.run, every_s=hold_s / 2),
        Job("retire_decisions", retire_decisions.run, every_s=retire_decisions.EVERY_S),
    )


async def run_jobs(deps: JobDeps, stopping: asyncio.Event, jobs: Sequence[Job]) -> None:
    """Until `stopping`; then each finishes what it is at, and those that want to run once more."""
    async with asyncio.TaskGroup() as tasks:
        for job in jobs:
            tasks.create_task(_keep_running(job, deps, stopping), name=job.name)


async def _keep_running(job: Job, deps: JobDeps, stopping: asyncio.Event) -> None:
    failures = 0
    while not stopping.is_set():
        failures = 0 if await _run(job, deps, stopping) else failures + 1
        backoff_s = min(LONGEST_WAIT_S, 2.0 ** min(failures, 10) / 2) if failures else 0.0
        await pause(stopping, max(job.every_s, backoff_s))
    if job.once_more:
        try:
            async with asyncio.timeout(LAST_RUN_WITHIN_S):
                await _run(job, deps, stopping)
        except TimeoutError:
            _LOG.warning(
                "job %s did not finish in time; the rest waits for the next start", job.name
            )


async def _run(job: Job, deps: JobDeps, stopping: asyncio.Event) -> bool:
    """Whether it went well."""
    try:
        await job.run(deps, stopping)
    except Exception as fault:  # noqa: BLE001 - whatever it is, the other jobs go on and this one again
        _LOG.warning("job %s failed, it will be tried again: %s", job.name, causes(fault))
        _LOG.debug("job %s", job.name, exc_info=fault)
        return False
    return True
