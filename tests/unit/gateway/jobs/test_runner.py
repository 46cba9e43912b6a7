"""A job that fails neither stops the others nor is given up; an order to stop is obeyed at once."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.jobs.deps import JobDeps
from gateway.jobs.runner import Trouble, jobs_for, run_jobs
from gateway.jobs.schedule import Job, pause
from tests.running import run

NOTHING = JobDeps(cast(Any, None), cast(Any, None), cast(Any, None), Path(), "jobs-1")


def test_a_failing_job_is_tried_again_while_the_others_go_on() -> None:
    async def story() -> None:
        stopping = asyncio.Event()
        runs = {"bad": 0, "good": 0}

        async def bad(_deps: JobDeps, _stopping: asyncio.Event) -> None:
            runs["bad"] += 1
            if runs["bad"] == 2:
                stopping.set()
            raise OSError("away")

        async def good(_deps: JobDeps, _stopping: asyncio.Event) -> None:
            runs["good"] += 1

        await run_jobs(NOTHING, stopping, [Job("bad", bad, 0.0), Job("good", good, 0.01)])

        assert runs["bad"] == 2
        assert runs["good"] > 2

    run(story())


def test_a_job_that_wants_it_runs_once_more_after_the_order_to_stop() -> None:
    async def story() -> None:
        stopping = asyncio.Event()
        seen: list[bool] = []

        async def look(_deps: JobDeps, order: asyncio.Event) -> None:
            seen.append(order.is_set())
            stopping.set()

        await run_jobs(NOTHING, stopping, [Job("look", look, 60.0, once_more=True)])

        assert seen == [False, True]

    run(story())


def test_an_outage_is_told_when_it_begins_changes_and_ends_and_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_us = 0
    trouble = Trouble("look", lambda: now_us)
    for minute in range(25):
        now_us = minute * 60_000_000
        trouble.more(OSError("away" if minute < 20 else "elsewhere"))
    trouble.over()
    trouble.over()

    assert [record.getMessage() for record in caplog.records] == [
        "job look failed, it will be tried again: OSError: away",
        "job look failed, it will be tried again: OSError: away",
        "job look failed, it will be tried again: OSError: elsewhere",
        "job look works again; it had failed 25 times",
    ]


def test_the_longer_a_job_fails_the_longer_it_waits_and_no_longer_once_it_works() -> None:
    trouble = Trouble("look")
    waits = []
    for _ in range(8):
        trouble.more(OSError("away"))
        waits.append(trouble.wait_s)
    trouble.over()

    assert [*waits, trouble.wait_s] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 0.0]


def test_a_pause_ends_with_the_order_to_stop() -> None:
    async def story() -> None:
        stopping = asyncio.Event()
        waiting = asyncio.create_task(pause(stopping, 60.0))
        await asyncio.sleep(0)
        stopping.set()
        await asyncio.wait_for(waiting, 30)

    run(story())


def test_jobs_run_as_often_as_the_life_of_a_hold_asks_for() -> None:
    rest = [60.0, 5.0, 5.0, 300.0, 3_600.0, 3_600.0, 3_600.0]
    assert _often(30_000) == [0.0, 5.0, 0.2, 0.3, 2.0, 5.0, 10.0, 30.0, 2.0, 15.0, 30.0, *rest]
    assert _often(3_000) == [0.0, 5.0, 0.2, 0.3, 0.2, 0.5, 1.0, 3.0, 2.0, 1.5, 30.0, *rest]


def _often(hold_ms: int) -> list[float]:
    return [job.every_s for job in jobs_for(hold_ms)]
