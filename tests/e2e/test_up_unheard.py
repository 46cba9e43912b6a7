"""`up` whose terminal is gone, or whose pipe nobody reads: what it is asked is done anyway."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.house import READY, ROOT, House, end_of

_IN_TIME_S = 30.0  # an idle one takes 2; who is not asked stays for ever


def unheard(home: Path, opened: Callable[[], tuple[int, int]] = os.pipe) -> House:
    """A ready one that has nobody at the other end of its standard error any more."""
    reader, writer = opened()
    up = House(home, stderr=writer)
    os.close(writer)
    up.says(READY)
    os.close(reader)
    return up


@pytest.mark.parametrize("opened", [os.pipe, os.openpty])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_status_0_though_nobody_can_be_told(
    tmp_path: Path, number: signal.Signals, opened: Callable[[], tuple[int, int]]
) -> None:
    up = unheard(tmp_path / "home", opened)
    try:
        pids = [up.pid(name) for name in up.names()]

        assert up.stop(number, _IN_TIME_S) == 0
    finally:
        up.process.kill()
        up.stop()

    assert all(end_of(pid, 0) for pid in pids)


def test_a_process_that_dies_is_mended_and_a_roll_is_made_though_nobody_can_be_told(
    tmp_path: Path,
) -> None:
    up = unheard(tmp_path / "home")
    try:
        first, jobs = up.pid("data-0"), up.pid("jobs")

        os.kill(first, signal.SIGKILL)
        assert up.next_pid("data-0", first)
        up.process.send_signal(signal.SIGUSR1)

        assert up.next_pid("jobs", jobs)  # the last that a roll replaces
        up.process.send_signal(signal.SIGUSR1)
        assert up.stop(signal.SIGTERM, _IN_TIME_S) == 0
    finally:
        up.process.kill()
        up.stop()


def test_one_whose_output_nobody_reads_comes_up_and_stays(tmp_path: Path) -> None:
    home = tmp_path / "home"
    environ = {k: v for k, v in os.environ.items() if not k.startswith("METERHOUSE_")}
    environ |= {"METERHOUSE_HOME": str(home), "METERHOUSE_PORT": "0", "METERHOUSE_WORKERS": "1"}
    reader, writer = os.pipe()
    os.close(reader)
    up = subprocess.Popen(
        [sys.executable, "-m", "gateway", "up"], cwd=ROOT, env=environ, stdout=writer, stderr=writer
    )
    os.close(writer)
    try:
        deadline = time.monotonic() + 60
        while not (home / "run" / "endpoints.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(subprocess.TimeoutExpired):
            up.wait(2)  # it says that it is ready now, and goes on

        up.terminate()
        assert up.wait(_IN_TIME_S) == 0
    finally:
        up.kill()
        up.wait()
