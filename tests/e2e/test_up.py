"""The promises of `up`: it mends what dies, leaves nothing behind, and keeps what it was told."""

import os
import re
import signal
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.house import READY, House, end_of, house


def make_tenant(up: House, name: str) -> str:
    with up.admin() as admin:
        answer = admin.post(
            "/tenants", json={"name": name, "currency": "USD", "timezone": "Europe/Berlin"}
        )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def answers(url: str) -> int:
    """The status of a GET on a connection of its own."""
    return httpx.get(url, timeout=60).status_code


def test_it_says_where_everything_is_and_shows_no_secret(tmp_path: Path) -> None:
    with house(tmp_path / "home") as up:
        assert answers(f"{up.url('gateway')}/readyz") == 200
        assert answers(f"{up.url('admin')}/healthz") == 200
        assert answers(f"{up.url('admin')}/metrics") == 200
        assert answers(f"{up.url('gateway')}/admin/v1/tenants") == 404

        token = (tmp_path / "home" / "admin-token").read_text().strip()
        assert up.url("gateway") in up.output
        assert up.url("admin") in up.output
        assert str(tmp_path / "home" / "admin-token") in up.output
        assert token not in up.output
        for name in up.names():
            arguments = Path(f"/proc/{up.pid(name)}/cmdline").read_bytes()
            assert token.encode() not in arguments
        assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_whatever_process_is_killed_is_mended(tmp_path: Path) -> None:
    with house(tmp_path / "home") as up:
        tenant = make_tenant(up, "before")
        for name in ("data-0", "admin", "jobs", "store"):
            said = len(up.lines)
            first = up.pid(name)

            os.kill(first, signal.SIGKILL)

            up.says(f"{name} was ended by SIGKILL; starting it again", after=said)
            assert answers(f"{up.url('gateway')}/readyz") == 200  # queued, never refused
            with up.admin() as admin:
                assert admin.get(f"/tenants/{tenant}").status_code == 200
            make_tenant(up, f"after {name}")
            assert up.next_pid(name, first)


def test_nothing_outlives_a_killed_supervisor_and_the_next_start_has_it_all(tmp_path: Path) -> None:
    up = House(tmp_path / "home")
    try:
        up.says(READY)
        tenant = make_tenant(up, "kept")
        pids = {name: up.pid(name) for name in up.names()}
        assert set(pids) == {"store", "data-0", "admin", "jobs"}
        up.process.kill()

        assert [name for name, pid in pids.items() if not end_of(pid)] == []
    finally:
        up.stop()

    with house(tmp_path / "home") as again, again.admin() as admin:
        assert admin.get(f"/tenants/{tenant}").json()["name"] == "kept"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_all_in_order_with_status_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    up = House(tmp_path / "home")
    try:
        up.says(READY)
        pids = [up.pid(name) for name in up.names()]
        gateway = up.url("gateway")

        assert up.stop(number) == 0
    finally:
        up.stop()

    assert all(end_of(pid, 0) for pid in pids)
    assert "killed" not in up.output
    assert not (tmp_path / "home" / "run" / "endpoints.json").exists()
    with pytest.raises(httpx.ConnectError):
        answers(f"{gateway}/readyz")


def test_an_idle_one_with_connections_kept_alive_stops_at_once_and_says_so(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    up = House(tmp_path / "home")
    try:
        up.says(READY)
        with up.admin() as admin, httpx.Client(base_url=up.url("gateway")) as client:
            assert admin.get("/tenants").status_code == 200
            assert client.get("/v1/models").status_code == 401
            began = time.monotonic()

            assert up.stop(signal.SIGINT) == 0
            took_s = time.monotonic() - began
    finally:
        up.stop()

    figure(f"stopped in {took_s:.1f} s")
    assert took_s < 30  # under 2 on a machine of its own; whoever is waited for has 60
    assert [line for line in up.lines if line][-1] == "meterhouse: stopped"


def test_a_second_start_in_the_same_home_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    with house(tmp_path / "home") as up:
        second = House(tmp_path / "home")

        assert second.process.wait(30) == 1
        second.says(f"already runs in {tmp_path / 'home'} (pid {up.process.pid})")
        second.stop()
        assert answers(f"{up.url('gateway')}/readyz") == 200


def test_a_taken_port_ends_the_start_with_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = House(tmp_path / "home", METERHOUSE_PORT=str(port))

        assert up.process.wait(30) == 1
        up.says(
            f"127.0.0.1:{port} (is taken by another program); choose another with METERHOUSE_PO"
        )
        up.stop()


def test_a_database_that_is_not_there_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    up = House(
        tmp_path / "home", METERHOUSE_DATABASE_URL="postgresql://nobody:nothing@127.0.0.1:1/none"
    )

    assert up.process.wait(60) == 1
    up.says("127.0.0.1")
    up.says("could not be brought to this release's schema")
    assert "nothing" not in up.output  # the password
    assert "Traceback" not in up.output
    up.stop()


def test_a_misspelt_setting_is_wrong_usage(tmp_path: Path) -> None:
    up = House(tmp_path / "home", METERHOUSE_WORKER="2")

    assert up.process.wait(30) == 2
    assert re.search("METERHOUSE_WORKER .*did you mean METERHOUSE_WORKERS", up.says("WORKER"))
    up.stop()
