import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.settings import StartError
from gateway.supervisor import Deaths, Part, Supervisor
from tests.running import run

SECOND_US = 1_000_000
SLEEP = "import time; time.sleep(60)"
DEAF = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "open(sys.argv[1], 'w').close(); time.sleep(60)"
)


def part(name: str, code: str, *words: str) -> Part:
    return Part(name=name, command=(sys.executable, "-c", code, *words))


def silent(_: str) -> None:
    pass


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def pid_in(lock: Path) -> int:
    text = lock.read_text() if lock.exists() else ""
    return int(text or 0)


def test_the_wait_doubles_and_the_sixth_death_in_a_minute_is_the_last() -> None:
    deaths = Deaths()

    delays = [deaths.delay_after(at * SECOND_US) for at in range(6)]

    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, None]


def test_deaths_long_ago_do_not_count() -> None:
    deaths = Deaths()

    assert [deaths.delay_after(at * 61 * SECOND_US) for at in range(20)] == [0.1] * 20


def test_a_killed_part_is_started_again(tmp_path: Path) -> None:
    async def story() -> None:
        said: asyncio.Queue[str] = asyncio.Queue()
        supervisor = Supervisor(tmp_path, said.put_nowait)
        supervisor.keep(part("sleeper", SLEEP))
        lock = tmp_path / "sleeper.lock"
        await until(lambda: pid_in(lock) > 0)
        first = pid_in(lock)

        os.kill(first, signal.SIGKILL)

        assert await said.get() == "sleeper was ended by SIGKILL; starting it again"
        await until(lambda: pid_in(lock) not in {0, first})
        second = pid_in(lock)
        await supervisor.stop(supervisor.names(), 5)
        with pytest.raises(ProcessLookupError):
            os.kill(second, 0)
        supervisor.close()

    run(story())


def test_a_part_that_cannot_live_is_given_up_with_its_reason(tmp_path: Path) -> None:
    async def story() -> None:
        supervisor = Supervisor(tmp_path, silent)
        supervisor.keep(part("broken", "raise SystemExit(3)"))

        assert await supervisor.broken == "broken cannot be kept alive: it ended with status 3"
        await supervisor.stop(supervisor.names(), 5)
        supervisor.close()

    run(story())


def test_wrong_usage_is_not_tried_again(tmp_path: Path) -> None:
    async def story() -> None:
        said: asyncio.Queue[str] = asyncio.Queue()
        supervisor = Supervisor(tmp_path, said.put_nowait)
        supervisor.keep(part("misused", "raise SystemExit(2)"))

        assert "status 2" in await supervisor.broken
        assert said.empty()
        await supervisor.stop(supervisor.names(), 5)
        supervisor.close()

    run(story())


def test_a_part_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    async def story() -> None:
        said: asyncio.Queue[str] = asyncio.Queue()
        supervisor = Supervisor(tmp_path, said.put_nowait)
        supervisor.keep(part("deaf", DEAF, str(tmp_path / "listening")))
        await until((tmp_path / "listening").exists)

        await supervisor.stop(["deaf"], 0.2)

        assert await said.get() == "deaf did not end in time and was killed"
        supervisor.close()

    run(story())


def test_hurry_ends_a_long_wait_within_seconds(tmp_path: Path) -> None:
    async def story() -> None:
        supervisor = Supervisor(tmp_path, silent)
        supervisor.keep(part("deaf", DEAF, str(tmp_path / "listening")))
        await until((tmp_path / "listening").exists)
        stopping = asyncio.create_task(supervisor.stop(["deaf"], 3600))

        supervisor.hurry.set()

        await asyncio.wait_for(stopping, 60)
        supervisor.close()

    run(story())


def test_a_command_run_once_answers_its_status(tmp_path: Path) -> None:
    async def story() -> int:
        supervisor = Supervisor(tmp_path, silent)
        try:
            return await supervisor.run_once(part("once", "raise SystemExit(5)"))
        finally:
            supervisor.close()

    assert run(story()) == 5


def test_a_home_has_one_supervisor(tmp_path: Path) -> None:
    async def story() -> None:
        first = Supervisor(tmp_path, silent)
        with pytest.raises(StartError, match=rf"already runs .*pid {os.getpid()}"):
            Supervisor(tmp_path, silent)
        first.close()

        Supervisor(tmp_path, silent).close()

    run(story())


def test_what_a_killed_supervisor_left_behind_is_ended(tmp_path: Path) -> None:
    async def story() -> None:
        killed = Supervisor(tmp_path, silent)
        killed.keep(part("stray", SLEEP))
        await until(lambda: pid_in(tmp_path / "stray.lock") > 0)
        pid = pid_in(tmp_path / "stray.lock")
        killed.close()  # the kernel does this much for a killed one

        said: asyncio.Queue[str] = asyncio.Queue()
        supervisor = Supervisor(tmp_path, said.put_nowait)
        clearing = asyncio.create_task(supervisor.clear_leftovers())
        assert await said.get() == f"ending stray (pid {pid}), left over from a killed start"
        await killed.stop(killed.names(), 5)
        await clearing
        supervisor.close()

    run(story())
