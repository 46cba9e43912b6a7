"""A stop loses nothing: what is in flight is finished, settled and found again after a restart."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.house import READY, ROOT, House, house
from tests.scripted_backend import backend_process

SLOW = 'script:{"tokens": 12, "chunk_delay_ms": 150}'


def configured(up: House, backend_url: str, directory: Path) -> str:
    """The shipped first configuration, with the backend's address filled in; an app's secret."""
    first = (ROOT / "deploy" / "seed" / "first.yaml").read_text()
    file = directory / "first.yaml"
    file.write_text(first.replace("http://127.0.0.1:11434/v1", backend_url))
    environ = os.environ | {"METERHOUSE_HOME": str(up.home)}
    command = [sys.executable, "-m", "gateway", "apply", "-f", str(file)]
    applied = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert applied.returncode == 0, applied.stdout + applied.stderr
    secrets = [word for word in applied.stdout.split() if word.startswith("mh_")]
    assert len(secrets) == 1, applied.stdout
    return secrets[0]


def ask(text: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "chat-default", "messages": messages, "stream": True, "max_tokens": 32}


def client(up: House, secret: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {secret}"}
    return httpx.Client(base_url=up.url("gateway"), headers=headers, timeout=120)


def known(http: httpx.Client) -> None:
    """Returns once the worker knows the new key, which takes a second at most."""
    deadline = time.monotonic() + 60
    while http.get("/v1/models").status_code == 401 and time.monotonic() < deadline:
        time.sleep(0.05)


def booked(up: House, requests: int) -> list[dict[str, Any]]:
    """The ledger's requests, once there are so many."""
    deadline = time.monotonic() + 60
    with up.admin() as admin:
        while True:
            rows: list[dict[str, Any]] = admin.get("/usage/requests").json()["items"]
            if len(rows) >= requests or time.monotonic() > deadline:
                return rows
            time.sleep(0.1)


def test_a_stream_in_flight_is_finished_and_booked_when_a_signal_comes(tmp_path: Path) -> None:
    with backend_process() as backend_url:
        up = House(tmp_path / "home")
        try:
            up.says(READY)
            secret = configured(up, backend_url, tmp_path)
            with client(up, secret) as http:
                known(http)
                with http.stream("POST", "/v1/chat/completions", json=ask(SLOW)) as answer:
                    assert answer.status_code == 200, answer.read()
                    lines = answer.iter_lines()
                    first = next(line for line in lines if line)
                    up.process.send_signal(signal.SIGINT)
                    events = [first, *(line for line in lines if line)]
            assert up.process.wait(30) == 0
        finally:
            up.stop()

        assert events[-1] == "data: [DONE]"
        words = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
        assert sum(bool(each["choices"][0]["delta"].get("content")) for each in words) == 12
        with house(tmp_path / "home") as again:
            (row,) = booked(again, 1)
        assert row["attempts"][0]["usage"]["output"] == 12
        assert row["attempts"][0]["provenance"] == "reported"


def test_a_second_signal_does_not_wait_for_a_stream_that_never_ends(tmp_path: Path) -> None:
    endless = 'script:{"tokens": 12, "stall_after_chunks": 2}'
    with backend_process() as backend_url:
        up = House(tmp_path / "home")
        try:
            up.says(READY)
            secret = configured(up, backend_url, tmp_path)
            with client(up, secret) as http:
                known(http)
                with http.stream("POST", "/v1/chat/completions", json=ask(endless)) as answer:
                    assert next(answer.iter_lines())
                    up.process.send_signal(signal.SIGTERM)
                    up.says("draining")
                    up.process.send_signal(signal.SIGTERM)
                    assert up.process.wait(20) == 0
        finally:
            up.stop()


@pytest.mark.long
def test_clients_that_neither_send_nor_read_on_do_not_make_a_stop_a_kill(tmp_path: Path) -> None:
    """One has sent half of its body, one takes nothing of a large stream."""
    large = 'script:{"tokens": 4000, "event_padding_bytes": 4000}'
    body = json.dumps(ask(large) | {"max_tokens": 4000}).encode()
    settings = {"METERHOUSE_DRAIN_SECONDS": "0"}
    with backend_process() as backend_url, house(tmp_path / "home", **settings) as up:
        secret = configured(up, backend_url, tmp_path)
        with client(up, secret) as http:
            known(http)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode()
        url = httpx.URL(up.url("gateway"))
        with socket.socket() as deaf, socket.socket() as slow:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            for each, part in ((deaf, body), (slow, body[:10])):
                each.connect((url.host, url.port))
                each.sendall(head + part)
            assert deaf.recv(12) == b"HTTP/1.1 200"
            assert up.stop() == 0
            said = slow.recv(65_536)
        assert "was killed" not in up.output
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"server_restarting" in said


def test_no_client_is_turned_away_while_a_killed_worker_comes_back(tmp_path: Path) -> None:
    quick = 'script:{"tokens": 1}'
    refused: list[str] = []
    stop = threading.Event()

    def keep_asking(http: httpx.Client) -> None:
        while not stop.is_set():
            try:
                http.post("/v1/chat/completions", json=ask(quick))
            except httpx.ConnectError as error:
                refused.append(repr(error))
            except httpx.TransportError:
                pass  # was on a connection of the killed worker

    with backend_process() as backend_url, house(tmp_path / "home", METERHOUSE_WORKERS="2") as up:
        secret = configured(up, backend_url, tmp_path)
        with client(up, secret) as http:
            known(http)
            asking = [threading.Thread(target=keep_asking, args=(http,)) for _ in range(4)]
            for thread in asking:
                thread.start()
            for name in ("data-0", "data-1"):
                before = up.pid(name)
                os.kill(before, signal.SIGKILL)
                up.next_pid(name, before)
            assert http.get("/v1/models").status_code == 200
            stop.set()
            for thread in asking:
                thread.join(30)

    assert refused == []
