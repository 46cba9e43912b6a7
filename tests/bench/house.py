"""The gateway with everything on: key, four levels of budgets and limits, policy, spool, journal,
access log, and spans of every tenth request.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from tests.bench import machine
from tests.bench.subjects import Subject
from tests.unit.gateway.telemetry.collector import collector

MODEL: Final = "bench"
_PRICES: Final = {"input": "0.15", "output": "0.60"}
_READY_SECONDS: Final = 60
_CALM_SECONDS: Final = 1.5  # configuration is in force on every worker within a second


@contextmanager
def gateway(backend_port: int) -> Iterator[Subject]:
    """One data plane process, measured; store, jobs and admin beside it."""
    with tempfile.TemporaryDirectory(prefix="mh-") as folder, collector() as there:
        home = Path(folder)
        environment = os.environ | {
            "METERHOUSE_HOME": folder,
            "METERHOUSE_PORT": "0",
            "METERHOUSE_ADMIN_LISTEN": "127.0.0.1:0",
            "METERHOUSE_WORKERS": "1",
            "METERHOUSE_DRAIN_SECONDS": "2",
            "OTEL_EXPORTER_OTLP_ENDPOINT": there.url,
        }
        log = (home / "up.log").open("wb")
        with log, _up(environment, log) as process:
            urls = _endpoints(home, process)
            key = seed(urls["admin"], (home / "admin-token").read_text().strip(), backend_port)
            time.sleep(_CALM_SECONDS)
            pids = machine.family(process.pid)
            measured = [pid for pid in pids if "--plane data" in machine.command(pid)]
            yield Subject(
                "gateway",
                httpx.URL(urls["gateway"]).port or 80,
                tuple(measured),
                {"authorization": f"Bearer {key}"},
                tuple(pid for pid in pids if pid not in measured),
            )


@contextmanager
def _up(environment: dict[str, str], log: Any) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "gateway", "up"]
    with subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _endpoints(home: Path, process: subprocess.Popen[bytes]) -> dict[str, str]:
    deadline = time.monotonic() + _READY_SECONDS
    written = home / "run" / "endpoints.json"
    while time.monotonic() < deadline and process.poll() is None:
        if written.exists():
            urls: dict[str, str] = json.loads(written.read_bytes())
            return urls
        time.sleep(0.05)
    raise RuntimeError("the gateway did not start: " + (home / "up.log").read_text()[-2000:])


def seed(admin_url: str, token: str, backend_port: int) -> str:
    """Configures a tenant, nested teams and a key with budgets and limits that never run out."""
    headers = {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"{admin_url}/admin/v1", headers=headers) as client:

        def post(noun: str, **body: Any) -> dict[str, Any]:
            answer = client.post(f"/{noun}", json=body)
            if answer.status_code >= 300:
                raise RuntimeError(f"POST {noun}: {answer.status_code} {answer.text}")
            made: dict[str, Any] = answer.json() if answer.content else {}
            return made

        tenant = post("tenants", name="bench", currency="USD", timezone="Europe/Berlin")["id"]
        outer = post("teams", tenant_id=tenant, name="outer", cost_center="1")["id"]
        inner = post("teams", tenant_id=tenant, parent_id=outer, name="inner", cost_center="2")
        key = post("keys", team_id=inner["id"], name="bench")
        backend = post(
            "backends",
            name="bench",
            dialect="openai",
            base_url=f"http://127.0.0.1:{backend_port}/v1",
            region="eu-central",
            jurisdictions=["DE"],
            placement="on_prem",
            max_concurrency=100_000,
        )
        post(
            "models",
            name=MODEL,
            targets=[{"backend_id": backend["id"], "upstream_model": MODEL, "weight": 1}],
            capabilities=["chat"],
            context_window=1_000_000,
            max_output_tokens=4096,
        )
        for meter, amount in _PRICES.items():
            price = {"meter": meter, "amount_per_million": amount, "currency": "USD"}
            post("prices", book="charge", model=MODEL, effective_from=_LONG_AGO, **price)
        scopes = [{"tenant": tenant}, {"team": outer}, {"team": inner["id"]}, {"key": key["id"]}]
        for scope in scopes:
            post("budgets", scope=scope, amount="1000000", period="month", mode="hard")
        for scope in (scopes[0], scopes[3]):
            post("limits", scope=scope, requests_per_minute=60_000_000, concurrent_requests=100_000)
        policy = post(
            "policies",
            name="bench",
            scope={"team": outer},
            slo={"ttft_p95_ms": 5000, "tpot_p95_ms": 1000, "on_breach": "prefer_faster"},
            prefer="cheapest",
        )
        post(f"policies/{policy['id']}/activate")
        return str(key["secret"])


_LONG_AGO: Final = "2020-01-01T00:00:00Z"
