"""A whole Meterhouse as a user starts it: `python -m gateway up`, in a home of its own."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
READY = "Ctrl-C drains and stops everything."


# A shell that runs the tests in the background has interrupts ignored, and `up` minds that; as it
# minds nohup.
_HEEDING = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL);"
    "signal.signal(signal.SIGHUP, signal.SIG_DFL);"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


class House:
    """One `up`. Its lines are read as they come, so that it never waits for us; those that go to
    another `stderr` are not.
    """

    def __init__(
        self, home: Path, *words: str, stderr: int = subprocess.STDOUT, **settings: str
    ) -> None:
        self.home = home
        environ = {k: v for k, v in os.environ.items() if not k.startswith("METERHOUSE_")}
        environ |= {"METERHOUSE_HOME": str(home), "METERHOUSE_PORT": "0", "METERHOUSE_WORKERS": "1"}
        environ["METERHOUSE_STORE_TIMEOUT_MS"] = "10000"  # as a busy machine needs it
        environ |= settings
        self.process = subprocess.Popen(
            [sys.executable, "-c", _HEEDING, "-m", "gateway", "up", *words],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self.lines.append("")
            self._news.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def says(self, words: str, within_s: float = 120, after: int = 0) -> str:
        """The first line from `after` on that contains the words; AssertionError without one."""

        def found() -> list[str]:
            return [line for line in self.lines[after:] if words in line]

        with self._news:
            self._news.wait_for(lambda: found() or self.process.poll() is not None, within_s)
        assert found(), f"{words!r} was not said; it said:\n{self.output}"
        return found()[0]

    def pid(self, name: str) -> int:
        return self.next_pid(name, 0)

    def next_pid(self, name: str, before: int) -> int:
        """The pid of the process that follows `before`, once it is written down."""
        for _ in range(6000):
            pid = (self.home / "run" / f"{name}.lock").read_text().strip()
            if pid not in {"", str(before)}:
                return int(pid)
            time.sleep(0.01)
        raise AssertionError(f"{name} was not started again:\n{self.output}")

    def names(self) -> list[str]:
        """The processes that are kept alive; each holds its lock."""
        locks = (self.home / "run").glob("*.lock")
        return [path.stem for path in locks if path.stem not in {"up", "migrate"}]

    def url(self, plane: str) -> str:
        endpoints = json.loads((self.home / "run" / "endpoints.json").read_bytes())
        return str(endpoints[plane])

    def admin(self) -> httpx.Client:
        token = (self.home / "admin-token").read_text().strip()
        return httpx.Client(
            base_url=f"{self.url('admin')}/admin/v1",
            headers={"authorization": f"Bearer {token}"},
            timeout=60,
        )

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`meterhouse WORDS...` in this home, to its end."""
        environ = os.environ | {"METERHOUSE_HOME": str(self.home)}
        return subprocess.run(
            [sys.executable, "-m", "gateway", *words],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def stop(self, number: signal.Signals = signal.SIGTERM, within_s: float = 120) -> int:
        """Its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(within_s)
        self._reader.join(10)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status


@contextlib.contextmanager
def house(home: Path, *words: str, within_s: float = 120, **settings: str) -> Iterator[House]:
    """A ready one, stopped at the end however the test went."""
    up = House(home, *words, **settings)
    try:
        up.says(READY, within_s)
        yield up
    finally:
        up.stop(signal.SIGINT)  # which gives idle clients no time to take their leave


def end_of(pid: int, within_s: float = 60) -> bool:
    """Whether the process ends in time; a pidfd turns readable with its end."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], within_s)[0])
    finally:
        os.close(watched)
