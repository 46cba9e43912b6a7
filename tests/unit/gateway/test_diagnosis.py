import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gateway import secrets
from gateway.diagnosis import diagnose, interpreter
from gateway.settings import Settings, socket_path
from gateway.stores.sql import engine as sql


def states(settings: Settings) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in diagnose(settings):
        found.setdefault(finding.part, []).append(finding.state)
    return found


def settings_of(home: Path, **variables: str) -> Settings:
    free = {"METERHOUSE_PORT": "0", "METERHOUSE_HOME": str(home)}
    return Settings.from_env(free | variables)


def test_a_machine_that_was_never_started_is_fine_and_stays_untouched(tmp_path: Path) -> None:
    found = states(settings_of(tmp_path / "home"))

    assert {state for each in found.values() for state in each} == {"ok"}
    assert not (tmp_path / "home").exists()


def test_too_few_open_files_are_worth_a_look(tmp_path: Path) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500));"
        "from gateway.diagnosis import machine;"
        "from gateway.settings import Settings;"
        f"found = list(machine(Settings.from_env({{'METERHOUSE_HOME': {str(tmp_path)!r}}})));"
        "print(found[-1].state, found[-1].found)"
    )

    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert answer.stdout.startswith("warning 500 open files: ")
    assert "up to 122 clients" in answer.stdout


@pytest.mark.parametrize(
    ("built_with", "prefix", "slow"),
    [
        ("'--prefix=/opt/python' '--enable-shared'", "/opt/python", True),
        ("", "/opt/python", True),
        ("'--enable-optimizations' '--with-lto'", "/usr/local", False),
        ("'--enable-shared' '--prefix=/usr'", "/usr", False),
    ],
)
def test_a_python_built_without_optimisations_is_told_of(
    built_with: str, prefix: str, slow: bool
) -> None:
    finding = interpreter(built_with, prefix, "glibc 2.36")

    assert finding.state == "ok"
    assert ("built without optimisations" in finding.found) is slow
    assert ("--enable-optimizations" in finding.remedy) is slow


def test_what_cannot_be_reached_is_a_finding_with_a_remedy(tmp_path: Path) -> None:
    nowhere = {
        "METERHOUSE_REDIS_URL": "redis://127.0.0.1:1",
        "METERHOUSE_DATABASE_URL": "postgresql://user:pass@127.0.0.1:1/none",
    }
    findings = {each.part: each for each in diagnose(settings_of(tmp_path, **nowhere))}

    assert findings["store"].state == findings["database"].state == "failed"
    assert "METERHOUSE_REDIS_URL" in findings["store"].remedy
    assert "METERHOUSE_DATABASE_URL" in findings["database"].remedy


def test_an_embedded_store_that_is_away_while_up_runs_is_a_fault(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    settings.run_dir.mkdir()
    (settings.run_dir / "up.lock").write_text(str(os.getpid()))

    (away,) = (each for each in diagnose(settings) if each.part == "store")

    assert away.state == "failed"
    assert f"runs (pid {os.getpid()})" in away.found
    assert "store.log" in away.remedy


def test_a_lock_that_a_killed_up_left_behind_is_no_fault(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    settings.run_dir.mkdir()
    (settings.run_dir / "up.lock").write_text("4194305")  # beyond any pid

    assert states(settings)["store"] == ["ok"]


def test_an_embedded_store_that_hangs_is_not_blamed_on_its_url(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    settings.run_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(socket_path(settings.home)))
        silent.listen()

        (hanging,) = (each for each in diagnose(settings) if each.part == "store")

    assert hanging.state == "failed"
    assert "store.log" in hanging.remedy


def test_a_store_that_answers_is_described(tmp_path: Path, store_url: str) -> None:
    found = states(settings_of(tmp_path, METERHOUSE_REDIS_URL=store_url))

    assert found["store"][0] == "ok"


def test_a_secret_that_others_can_read_is_worth_a_look(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    secrets.load(settings)
    token = tmp_path / "admin-token"
    token.chmod(stat.S_IMODE(token.stat().st_mode) | 0o044)

    finding = next(each for each in diagnose(settings) if each.part == "secrets")

    assert finding.state == "warning"
    assert finding.remedy == f"chmod 600 {token}"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("METERHOUSE_ADMIN_TOKEN", "short"),
        ("METERHOUSE_SECRET_KEY", "abc"),
        ("METERHOUSE_KEY_PEPPER", "1:abc"),
    ],
)
def test_a_secret_that_a_first_start_would_refuse_is_a_fault_before_it(
    tmp_path: Path, variable: str, value: str
) -> None:
    home = tmp_path / "home"

    (finding,) = (
        each for each in diagnose(settings_of(home, **{variable: value})) if each.part == "secrets"
    )

    assert finding.state == "failed"
    assert variable in finding.found
    assert not home.exists()


def test_a_port_of_another_program_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = settings_of(tmp_path, METERHOUSE_ADMIN_LISTEN=f"127.0.0.1:{port}")

        failed = [each for each in diagnose(settings) if each.state == "failed"]

    assert [each.part for each in failed] == ["listeners"]
    assert f"127.0.0.1:{port} is taken" in failed[0].found


def test_a_migrated_database_shows_its_revision(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    opened = sql.open_engine(settings.database_url)
    sql.migrate(opened)
    opened.dispose()

    finding = next(each for each in diagnose(settings) if each.part == "database")

    assert finding.state == "ok"
    assert "revision" in finding.found


class Healthy(BaseHTTPRequestHandler):
    """Answers as a gateway's listener does."""

    def do_GET(self) -> None:
        body = b'{"status":"ok"}' if self.path == "/healthz" else b""
        self.send_response(200 if body else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def gateway_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def listeners_of(settings: Settings, url: str = "") -> list[tuple[str, str]]:
    found = (each for each in diagnose(settings, url) if each.part == "listeners")
    return [(each.state, each.found) for each in found]


def written(settings: Settings, **endpoints: str) -> None:
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    (settings.run_dir / "endpoints.json").write_text(json.dumps(endpoints))


def test_a_gateway_is_looked_for_where_it_was_started(tmp_path: Path, gateway_url: str) -> None:
    settings = settings_of(tmp_path)
    written(settings, gateway=gateway_url, admin="http://127.0.0.1:1")

    assert listeners_of(settings) == [
        ("ok", f"{gateway_url} answers; this home is up"),
        ("failed", "http://127.0.0.1:1 does not answer, though this home is up"),
    ]


def test_what_was_written_down_before_a_crash_is_said_to_be_gone(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, METERHOUSE_ADMIN_LISTEN="127.0.0.1:0")
    written(settings, gateway="http://127.0.0.1:1")

    assert listeners_of(settings)[0] == (
        "warning",
        "http://127.0.0.1:1 was written down by the last `up` of this home, and does not answer",
    )


def test_a_gateway_elsewhere_is_looked_for_where_one_says(tmp_path: Path, gateway_url: str) -> None:
    settings = settings_of(tmp_path)
    said = "does not answer as a gateway does"

    assert listeners_of(settings, gateway_url) == [
        ("ok", f"{gateway_url} answers as a gateway does")
    ]
    assert listeners_of(settings, f"{gateway_url}/other") == [
        ("failed", f"{gateway_url}/other {said}")
    ]
    assert listeners_of(settings, "nonsense") == [("failed", f"nonsense {said}")]
