"""`python -m tests.bench.start`: how long `up` takes on existing data, what its processes weigh.

A home with a hundred keys is made first. The figures are of the starts after that one; the load
average says what else the machine was doing: a start is mostly Python being loaded.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import httpx
import msgspec

from tests.bench import machine
from tests.bench.goals import Goal, told
from tests.bench.house import seed

_KEYS: Final = 100
_CALM_SECONDS: Final = 3.0  # jobs load after the ready line
_MOST_READY_S: Final = 2.0
_MOST_MIB: Final = 124  # 130 MB
_SAID_LAST: Final = "Ctrl-C drains"


class Start(msgspec.Struct, frozen=True):
    """`cpu_s` up to the ready line, of all processes that then live; the rest when it is calm."""

    ready_s: float
    cpu_s: float
    load: float
    rss_mib: dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.start", description=__doc__)
    parser.add_argument("--starts", type=int, default=5, help="figures are medians over these")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--database", default="", help="METERHOUSE_DATABASE_URL; default SQLite")
    arguments = parser.parse_args()
    machine.prefer([os.getpid()])  # what it starts inherits that
    starts = measure(arguments.starts, arguments.workers, arguments.database)
    print(text(starts))
    return told(_goals(starts))


def _goals(starts: list[Start]) -> list[Goal]:
    ready_s = median(each.ready_s for each in starts)
    mib = median(each.rss_mib["data-0"] for each in starts)
    return [
        Goal(
            "ready on existing data",
            f"{ready_s:.2f} s",
            f"<= {_MOST_READY_S:g} s",
            ready_s <= _MOST_READY_S,
        ),
        Goal(
            f"an idle worker with {_KEYS} keys",
            f"{mib:.0f} MiB",
            f"<= {_MOST_MIB} MiB",
            mib <= _MOST_MIB,
        ),
    ]


def measure(starts: int, workers: int = 1, database_url: str = "") -> list[Start]:
    """That many starts of one home; an empty URL means SQLite."""
    with tempfile.TemporaryDirectory(prefix="mh-start-") as folder:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("METERHOUSE_", "OTEL"))}
        environ |= {
            "METERHOUSE_HOME": folder,
            "METERHOUSE_PORT": "0",
            "METERHOUSE_ADMIN_LISTEN": "127.0.0.1:0",
            "METERHOUSE_WORKERS": str(workers),
            "METERHOUSE_DATABASE_URL": database_url,
        }
        _furnish(Path(folder), environ)
        return [_start(environ) for _ in range(starts)]


def text(starts: list[Start]) -> str:
    lines = [
        f"ready {each.ready_s:5.2f} s   CPU {each.cpu_s:5.2f} s   load average {each.load:.1f}"
        for each in starts
    ]
    lines.append(f"median ready {median(each.ready_s for each in starts):.2f} s")
    for name in starts[0].rss_mib:
        figure = median(each.rss_mib[name] for each in starts if name in each.rss_mib)
        lines.append(f"  {name:8} {figure:6.1f} MiB")
    return "\n".join(lines)


def _furnish(home: Path, environ: dict[str, str]) -> None:
    """Everything that the request benchmark configures, and keys up to a hundred."""
    with _up(environ) as (_, said):
        _until_ready(said)
        admin = re.search(r'"admin":\s*"([^"]+)"', (home / "run" / "endpoints.json").read_text())
        token = (home / "admin-token").read_text().strip()
        if admin is None:
            raise RuntimeError("the admin API has no address")
        seed(admin[1], token, 9)
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=f"{admin[1]}/admin/v1", headers=headers) as client:
            team = client.get("/teams").json()["items"][0]["id"]
            for number in range(_KEYS - 1):
                body = {"team_id": team, "name": f"key {number}"}
                client.post("/keys", json=body).raise_for_status()


def _start(environ: dict[str, str]) -> Start:
    load = os.getloadavg()[0]
    began = time.monotonic()
    with _up(environ) as (pid, said):
        _until_ready(said)
        ready_s = time.monotonic() - began
        cpu_s = machine.cpu_seconds(machine.family(pid)) or 0.0
        time.sleep(_CALM_SECONDS)
        weights = {_name(each): machine.resident_mib([each]) for each in machine.family(pid)}
    return Start(ready_s, cpu_s, load, {name: mib or 0.0 for name, mib in weights.items()})


@contextmanager
def _up(environ: dict[str, str]) -> Iterator[tuple[int, Iterator[str]]]:
    command = [sys.executable, "-m", "gateway", "up"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.pid, iter(process.stdout or ())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _until_ready(said: Iterator[str]) -> None:
    if not any(_SAID_LAST in line for line in said):
        raise RuntimeError("the gateway did not start; it has said why")


def _name(pid: int) -> str:
    """What a process is here for: data-0, admin, jobs, store or up."""
    words = machine.command(pid).split()
    if "--plane" in words:
        plane = words[words.index("--plane") + 1]
        return plane if plane == "admin" else f"{plane}-{words[words.index('--worker') + 1]}"
    return next((name for name in ("jobs", "up") if name in words), "store")


if __name__ == "__main__":
    sys.exit(main())
