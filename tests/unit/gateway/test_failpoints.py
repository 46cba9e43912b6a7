"""Failpoints do nothing unless a test armed them twice over, and strike once where they did."""

import ast
import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import failpoints
from gateway.failpoints import ALLOWED_BY, ARMED_BY, POINTS, armed
from gateway.settings import StartError
from tests.running import run

ROOT = Path(__file__).parents[3]


def arming(text: str) -> dict[str, str]:
    return {ARMED_BY: text, ALLOWED_BY: "yes"}


def test_outside_of_tests_a_failpoint_does_nothing() -> None:
    assert armed({}) is failpoints.failpoint
    assert not failpoints.failpoint("admit.begins")


def test_a_process_that_is_not_a_tests_does_not_start_with_one_armed() -> None:
    environ = {k: v for k, v in os.environ.items() if "METERHOUSE" not in k}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gateway", "serve", "--fd", "0"],
        env=environ | {ARMED_BY: "admit.begins=kill", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert f"{ARMED_BY} makes a process kill itself" in done.stderr


@pytest.mark.parametrize(
    "text", ["admit.begin=kill", "admit.begins=explode", "admit.begins", "admit.begins=kill@x"]
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(StartError, match=ARMED_BY):
        armed(arming(text))


def test_the_nth_passage_is_struck_and_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> list[bool]:
        failpoint = armed(arming("drain.taken=cancel@2, drain.booked=sleep:1"))
        struck = []
        for _ in range(4):
            failpoint("drain.taken")
            failpoint("drain.done")
            try:
                await asyncio.sleep(0)
                struck.append(False)
            except asyncio.CancelledError:
                struck.append(True)
        return struck

    assert run(scenario()) == [False, True, False, False]
    assert capfd.readouterr().err == "failpoint drain.taken\n"


def test_what_passes_outside_of_a_task_is_not_said_to_be_cancelled(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def scenario() -> str:
        failpoint = armed(arming("drain.taken=cancel@2"))
        for _ in range(3):
            asyncio.get_running_loop().call_soon(failpoint, "drain.taken")
        await asyncio.sleep(0)
        before = capfd.readouterr().err
        failpoint("drain.taken")  # the next passage of a task is struck in their place
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        return before

    armed(arming("drain.taken=cancel"))("drain.taken")
    assert run(scenario()) == ""
    assert capfd.readouterr().err == "failpoint drain.taken\n"


def test_a_killed_process_has_said_where() -> None:
    program = "from gateway.failpoints import failpoint; failpoint('drain.taken'); print('alive')"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=os.environ | arming("drain.taken=kill") | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == -signal.SIGKILL
    assert (done.stdout, done.stderr) == ("", "failpoint drain.taken\n")


def test_every_point_stands_at_one_place_of_the_code() -> None:
    passed = [
        call.args[0].value
        for path in (ROOT / "gateway").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "failpoint"
        and isinstance(call.args[0], ast.Constant)
    ]

    assert sorted(passed) == sorted(POINTS)
