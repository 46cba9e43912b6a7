"""What each kind of process loads: start time and memory are mostly that."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from gateway.stores.sql.engine import migrate, open_engine

ROOT = Path(__file__).parents[2]
# Alembic is for schemas that are behind, pydantic comes with Litestar and an extra, tiktoken is for
# backends that report no usage, OpenTelemetry for those who export.
NOBODY = ("alembic", "mako", "pydantic", "psycopg", "tiktoken", "genai_prices")
EXPORT = ("opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf", "requests")
UNWANTED = {
    "data": (*NOBODY, *EXPORT, "gateway.admin", "gateway.jobs", "redis", "httpx"),
    "admin": (*NOBODY, *EXPORT, "gateway.jobs", "redis", "httpx"),
    "jobs": (*NOBODY, "gateway.admin", "gateway.dataplane", "litestar", "uvicorn", "httpx"),
}


@pytest.mark.parametrize("kind", UNWANTED)
def test_a_process_loads_nothing_that_it_does_not_need(
    kind: str, tmp_path: Path, sqlite_url: str, store_url: str
) -> None:
    engine = open_engine(sqlite_url)
    migrate(engine)
    engine.dispose()
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("METERHOUSE_", "OTEL_"))}
    environ |= {
        "METERHOUSE_HOME": str(tmp_path),
        "METERHOUSE_DATABASE_URL": sqlite_url,
        "METERHOUSE_REDIS_URL": store_url,
    }

    loaded = _loaded_by(kind, environ, tmp_path)

    assert "gateway.settings" in loaded
    rooms = {
        name for name in loaded for room in UNWANTED[kind] if f"{name}.".startswith(f"{room}.")
    }
    assert rooms == set()


def _loaded_by(kind: str, environ: dict[str, str], home: Path) -> set[str]:
    """The modules of a process that was started, asked, and stopped; Python lists them itself."""
    words = ["jobs"] if kind == "jobs" else ["serve", "--plane", kind]
    with socket.create_server(("127.0.0.1", 0)) as listener, (home / "said").open("w+") as said:
        if kind != "jobs":
            words += ["--fd", str(listener.fileno())]
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "gateway", *words],
            cwd=ROOT,
            env=environ,
            pass_fds=(listener.fileno(),),
            stderr=said,
        )
        try:
            if kind == "jobs":
                _until_it_reports(process, home / "run" / "metrics")
            else:
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                assert httpx.get(f"{url}/readyz", timeout=30).status_code == 200
                httpx.get(f"{url}/{'v1/models' if kind == 'data' else 'admin/v1/status'}")
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        said.seek(0)
        return set(re.findall(r"\| +([\w.]+)$", said.read(), re.MULTILINE))


def _until_it_reports(process: subprocess.Popen[bytes], directory: Path) -> None:
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if any(directory.iterdir()):
                return
        time.sleep(0.02)
    raise AssertionError("it ended before it reported")
