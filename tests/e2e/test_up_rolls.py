"""A new release under load: every process is replaced, and no client notices."""

import os
import signal
import threading
import time
from pathlib import Path

import httpx

from tests.e2e.house import House, house
from tests.e2e.test_up_drains import SLOW, ask, client, configured, known
from tests.scripted_backend import backend_process

QUICK = 'script:{"tokens": 1}'


class Asking:
    """Clients that never pause; what went wrong for any of them, and how many answers they had."""

    def __init__(self, up: House, secret: str, count: int) -> None:
        self.faults: list[str] = []
        self.served = 0
        self._stop = threading.Event()
        self._counting = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(client(up, secret),)) for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, http: httpx.Client) -> None:
        with http:
            while not self._stop.is_set():
                try:
                    answer = http.post("/v1/chat/completions", json=ask(QUICK))
                except httpx.TransportError as fault:
                    self.faults.append(repr(fault))
                    continue
                whole = answer.status_code == 200 and answer.text.endswith("data: [DONE]\n\n")
                if not whole:
                    self.faults.append(f"{answer.status_code} {answer.text[-200:]}")
                with self._counting:
                    self.served += whole

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)


def test_a_roll_under_load_turns_nobody_away_moves_nothing_and_books_all_once(
    tmp_path: Path,
) -> None:
    with backend_process() as backend_url, house(tmp_path / "home", METERHOUSE_WORKERS="2") as up:
        secret = configured(up, backend_url, tmp_path)
        with client(up, secret) as http:
            known(http)
            endpoints = (up.home / "run" / "endpoints.json").read_bytes()
            jobs = up.pid("jobs")
            old = {jobs, *(up.pid(name) for name in ("data-0", "data-1", "admin"))}
            asking = Asking(up, secret, 4)
            try:
                with http.stream("POST", "/v1/chat/completions", json=ask(SLOW)) as answer:
                    lines = answer.iter_lines()
                    first = next(line for line in lines if line)
                    up.process.send_signal(signal.SIGUSR1)
                    events = [first, *(line for line in lines if line)]
                up.says("rolled: every process is a new one", 90)
            finally:
                asking.end()
            new = {up.pid(name) for name in ("data-0.1", "data-1.1", "admin.1")}
            new.add(up.next_pid("jobs", jobs))  # the one part whose name stays
            served = asking.served + 1
            rows = counted(up, served)
            print(f"{served} requests served while 4 processes were replaced: {rows} rows")

            assert asking.faults == []
            assert rows == served
            assert events[-1] == "data: [DONE]"
            assert not old & new
            assert not any(alive(pid) for pid in old)
            assert (up.home / "run" / "endpoints.json").read_bytes() == endpoints
            assert http.get("/v1/models").status_code == 200


def test_a_release_that_does_not_come_up_leaves_the_old_processes_at_work(tmp_path: Path) -> None:
    with backend_process() as backend_url, house(tmp_path / "home") as up:
        secret = configured(up, backend_url, tmp_path)
        with client(up, secret) as http:
            known(http)
            before = up.pid("data-0")
            database = up.home / "meterhouse.db"
            database.rename(database.with_suffix(".away"))
            database.mkdir()  # nothing can be migrated or read

            up.process.send_signal(signal.SIGUSR1)
            up.says("not rolled")

            assert up.pid("data-0") == before
            assert http.get("/v1/models").status_code == 200
            database.rmdir()
            database.with_suffix(".away").rename(database)


def counted(up: House, requests: int) -> int:
    """How many requests the ledger has, once there are so many."""
    deadline = time.monotonic() + 30
    with up.admin() as admin:
        while True:
            items = admin.get("/usage", params={"group_by": "model"}).json()["items"]
            found = sum(item["requests"] for item in items)
            if found >= requests or time.monotonic() > deadline:
                return found
            time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
