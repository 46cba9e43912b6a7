"""A gateway, a scripted backend and a crowd, each a process of its own, and what can be seen of
them from outside: descriptors, memory, what is in flight, what is held.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import redis
from sqlalchemy import select

from billing.money import parse_picos
from gateway.settings import Settings
from gateway.stores.sql.engine import open_engine, reading
from gateway.stores.sql.tables import usage_rows
from tests.bench import house as furnished
from tests.e2e.house import READY, House
from tests.scripted_backend import Entry, backend_process
from tests.streams.crowd import Standing

MODEL: Final = furnished.MODEL
_CALM_S: Final = 1.5  # configuration is in force on every worker within a second
_CONNECTIONS: Final = "http_client_open_connections"


class Left(msgspec.Struct, frozen=True):
    """What the gateway still holds of its clients' requests."""

    in_flight: int
    unsettled: int
    holds: int
    held: tuple[str, ...]  # money, by budget
    busy: int  # connections to backends

    @property
    def nothing(self) -> bool:
        counts = self.in_flight + self.unsettled + self.holds + self.busy
        return counts == 0 and set(self.held) <= {"0"}


class Crowd:
    """Clients in a process of their own."""

    def __init__(self, url: httpx.URL, key: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.streams.crowd", url.host, str(url.port), key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, **command: Any) -> Standing:
        """How things stand once the command is carried out."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return msgspec.json.decode(self.process.stdout.readline(), type=Standing)

    def vanish(self) -> None:
        """Every client at once, as when a machine goes: the kernel closes all that was open."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Rig:
    def __init__(self, up: House, backend_url: str) -> None:
        self.up = up
        self.backend_url = backend_url
        self.worker = up.pid("data-0")
        self.url = httpx.URL(up.url("gateway"))
        token = (up.home / "admin-token").read_text().strip()
        port = httpx.URL(backend_url).port
        self.key = furnished.seed(up.url("admin"), token, port or 80)
        time.sleep(_CALM_S)
        self.resting = self.descriptors()

    @contextmanager
    def crowd(self) -> Iterator[Crowd]:
        crowd = Crowd(self.url, self.key)
        try:
            yield crowd
        finally:
            crowd.vanish()

    def descriptors(self) -> int:
        return len(self._open())

    def _open(self) -> list[str]:
        """What every descriptor of the worker points at, but for the database's files: its pool
        opens a connection more (two files) when two threads read at once, and keeps it.
        """
        database = str(self.up.home / "meterhouse.db")
        links = []
        for descriptor in Path(f"/proc/{self.worker}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since it was listed
                links.append(str(descriptor.readlink()))
        return sorted(link for link in links if not link.startswith(database))

    def resident_mib(self) -> float:
        lines = Path(f"/proc/{self.worker}/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def left(self) -> Left:
        """A second old at most."""
        with self.up.admin() as admin:
            status = admin.get("/status").raise_for_status().json()
            budgets = admin.get("/budgets").raise_for_status().json()["items"]
            metrics = admin.get(f"{self.up.url('admin')}/metrics").raise_for_status().text
        return Left(
            in_flight=sum(worker["in_flight"] for worker in status["workers"]),
            unsettled=sum(worker["unsettled"] for worker in status["workers"]),
            holds=sum(queue["holds"] for queue in status["queues"]),
            held=tuple(budget["held"] for budget in budgets),
            busy=_busy(metrics),
        )

    def spent_picos(self) -> list[int]:
        """Of every budget, outermost first."""
        with self.up.admin() as admin:
            budgets = admin.get("/budgets").raise_for_status().json()["items"]
        return [parse_picos(budget["spent"]) for budget in budgets]

    def until_nothing_is_left(self, descriptors: int, within_s: float) -> float:
        """Seconds until nothing is held and no more than so many descriptors are open."""
        began = time.monotonic()
        while True:
            left, files = self.left(), self._open()
            took = time.monotonic() - began
            if left.nothing and len(files) <= descriptors:
                return took
            assert took < within_s, (left, descriptors, files)
            time.sleep(0.1)

    def expired_holds(self) -> int:
        """Holds that nobody has kept alive."""
        settings = Settings.from_env({"METERHOUSE_HOME": str(self.up.home)})
        with redis.Redis.from_url(settings.redis_url) as store:
            seconds, micros = store.time()
            now_ms = seconds * 1000 + micros // 1000
            return sum(int(store.zcount(key, 0, now_ms)) for key in store.scan_iter("mh:{*}:holds"))

    def book(self) -> list[Entry]:
        """The backend's own."""
        answer = httpx.get(self._book_url, timeout=120)
        return msgspec.json.decode(answer.content, type=list[Entry])

    def new_book(self) -> None:
        httpx.delete(self._book_url, timeout=120).raise_for_status()

    @property
    def _book_url(self) -> str:
        return f"{self.backend_url.removesuffix('/v1')}/__book"

    def ledger(self, requests: int, since_us: int, within_s: float = 60) -> list[Any]:
        """Every usage row of a request admitted since then, once the jobs have drained the journal
        and there are so many.
        """
        query = select(usage_rows).where(usage_rows.c.admitted_at_us >= since_us)
        deadline = time.monotonic() + within_s
        settings = Settings.from_env({"METERHOUSE_HOME": str(self.up.home)})
        engine = open_engine(settings.database_url)
        try:
            while True:
                with reading(engine) as connection:
                    rows = list(connection.execute(query))
                if len(rows) >= requests or time.monotonic() > deadline:
                    return rows
                time.sleep(0.2)
        finally:
            engine.dispose()


def _busy(metrics: str) -> int:
    lines = [line for line in metrics.splitlines() if line.startswith(_CONNECTIONS)]
    assert lines, metrics[:2000]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines if '"active"' in line)


@contextmanager
def rig(home: Path, **settings: str) -> Iterator[Rig]:
    """Everything on: keys, nested teams, budgets and limits on four levels, policy, spool,
    journal, access log. One data plane worker.
    """
    with backend_process() as backend_url:
        up = House(home, METERHOUSE_DRAIN_SECONDS="2", **settings)
        try:
            up.says(READY)
            yield Rig(up, backend_url)
        finally:
            up.stop()
