"""Runs the jobs until told to stop. One that fails is tried again while the others go on."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from gateway import clock
from gateway.jobs import (
    break_loops,
    check_books,
    compact_rollups,
    drain_journal,
    forget_erasures,
    look_at_engines,
    open_accounts,
    prune,
    raise_alerts,
    raise_anomalies,
    reap_holds,
    reap_leases,
    rebuild_counters,
    replay_spool,
    retire_alerts,
    retire_decisions,
    tell_again,
    tell_alerts,
)
from gateway.jobs.deps import JobDeps
from gateway.jobs.schedule import Job, causes, pause

LONGEST_WAIT_S: Final = 30.0
LAST_RUN_WITHIN_S: Final = 12.0  # below the supervisor's patience
TOLD_AGAIN_US: Final = 600_000_000

_LOG: Final = logging.getLogger(__name__)


def jobs_for(hold_ms: int) -> tuple[Job, ...]:
    """Every job, as often as the life of a hold asks for."""
    hold_s = hold_ms / 1000
    return (
        Job("drain_journal", drain_journal.run, every_s=0.0, once_more=True),
        Job("compact_rollups", compact_rollups.run, every_s=compact_rollups.EVERY_S),
        Job("rebuild_counters", rebuild_counters.run, every_s=rebuild_counters.EVERY_S),
        Job("open_accounts", open_accounts.run, every_s=open_accounts.EVERY_S),
        Job("replay_spool", replay_spool.run, every_s=hold_s / 15),
        Job("reap_holds", reap_holds.run, every_s=hold_s / 6),
        Job("reap_leases", reap_leases.run, every_s=hold_s / 3),
        Job("tell_again", tell_again.run, every_s=hold_s),
        Job("look_at_engines", look_at_engines.run, every_s=look_at_engines.EVERY_S),
        Job("prune", prune.run, every_s=hold_s / 2),
        Job("raise_alerts", raise_alerts.run, every_s=raise_alerts.EVERY_S),
        Job("raise_anomalies", raise_anomalies.run, every_s=raise_anomalies.EVERY_S),
        Job("break_loops", break_loops.run, every_s=break_loops.EVERY_S),
        Job("tell_alerts", tell_alerts.run, every_s=tell_alerts.EVERY_S),
        Job("check_books", check_books.run, every_s=check_books.EVERY_S),
        Job("retire_decisions", retire_decisions.run, every_s=retire_decisions.EVERY_S),
        Job("retire_alerts", retire_alerts.run, every_s=retire_alerts.EVERY_S),
        Job("forget_erasures", forget_erasures.run, every_s=forget_erasures.EVERY_S),
    )


async def run_jobs(deps: JobDeps, stopping: asyncio.Event, jobs: Sequence[Job]) -> None:
    """Until `stopping`; then each finishes what it is at, and those that want to run once more."""
    async with asyncio.TaskGroup() as tasks:
        for job in jobs:
            tasks.create_task(_keep_running(job, deps, stopping), name=job.name)


async def _keep_running(job: Job, deps: JobDeps, stopping: asyncio.Event) -> None:
    trouble = Trouble(job.name)
    while not stopping.is_set():
        await _run(job, deps, stopping, trouble)
        await pause(stopping, max(job.every_s, trouble.wait_s))
    if job.once_more:
        try:
            async with asyncio.timeout(LAST_RUN_WITHIN_S):
                await _run(job, deps, stopping, trouble)
        except TimeoutError:
            _LOG.warning(
                "job %s did not finish in time; the rest waits for the next start", job.name
            )


async def _run(job: Job, deps: JobDeps, stopping: asyncio.Event, trouble: "Trouble") -> None:
    try:
        await job.run(deps, stopping)
    except Exception as fault:  # noqa: BLE001 - whatever it is, the other jobs go on and this one again
        trouble.more(fault)
    else:
        trouble.over()


class Trouble:
    """How often a job has failed in a row. An outage is a line when it begins, when its cause is
    another, now and then while it lasts, and when it is over: not a line every time.
    """

    def __init__(self, name: str, monotonic_us: Callable[[], int] = clock.monotonic_us) -> None:
        self._name = name
        self._now_us = monotonic_us
        self._failures = 0
        self._cause = ""
        self._told_us = 0

    @property
    def wait_s(self) -> float:
        """Before the next try, at least."""
        if not self._failures:
            return 0.0
        return min(LONGEST_WAIT_S, 2.0 ** min(self._failures, 10) / 2)

    def more(self, fault: Exception) -> None:
        self._failures += 1
        cause, now_us = causes(fault), self._now_us()
        if cause != self._cause or now_us - self._told_us >= TOLD_AGAIN_US:
            self._cause, self._told_us = cause, now_us
            _LOG.warning("job %s failed, it will be tried again: %s", self._name, cause)
        _LOG.debug("job %s", self._name, exc_info=fault)

    def over(self) -> None:
        if self._failures:
            _LOG.warning("job %s works again; it had failed %d times", self._name, self._failures)
        self._failures, self._cause = 0, ""
