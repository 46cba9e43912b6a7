"""A requirement that the gateway's own place cannot meet is said where it is made, not only met."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import secrets
from gateway.__main__ import main
from gateway.diagnosis import diagnose
from gateway.finding import Finding
from gateway.settings import Settings
from tests.admin_server import TOKEN, AdminServer, Made, admin_server

UNSET = "METERHOUSE_JURISDICTION is not set"
SEED = """
{kind: tenant, name: acme, currency: EUR, timezone: UTC}
---
kind: policy
name: eu
scope: {tenant: acme}
require: {residency: [EU]}
activate: true
---
{kind: policy, name: plain, scope: {tenant: acme}, prefer: cheapest}
"""


@pytest.mark.parametrize(
    ("stands_in", "words"), [("", UNSET), ("US,DE", "stands in DE, US"), ("DE", "")]
)
def test_a_policy_answers_with_what_would_make_it_refuse_everything(
    sqlite_url: str, stands_in: str, words: str
) -> None:
    places = frozenset(filter(None, stands_in.split(",")))
    with admin_server(sqlite_url, jurisdictions=places) as server, server.client() as client:
        made = Made(client)
        scope = {"tenant": made.tenant()["id"]}
        policy = made.make("policies", name="eu", scope=scope, require={"residency": ["EU"]})
        put = client.put(f"/policies/{policy['id']}", json=policy | {"prefer": "cheapest"})
        plain = made.make("policies", name="plain", scope=scope, prefer="cheapest")
        status = client.get("/status").json()

    assert put.status_code == 200
    for answered in (policy, put.json()):
        assert len(answered["warnings"]) == bool(words)
        assert words in "".join(answered["warnings"])
    assert plain["warnings"] == []
    assert status["jurisdictions"] == sorted(places)


def test_nothing_is_said_of_a_requirement_that_is_in_force_no_more(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with admin_server(sqlite_url, jurisdictions=frozenset()) as server, server.client() as client:
        monkeypatch.setenv("METERHOUSE_ADMIN_URL", server.url)
        monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
        made = Made(client)
        document = {"scope": {"tenant": made.tenant()["id"]}, "require": {"residency": ["EU"]}}
        policy = made.make("policies", name="alone", **document)
        drafted = made.make("policies", name="drafted", **document)
        told = [step(capsys, verb, "alone") for verb in ("activate", "retire")]
        step(capsys, "activate", "drafted")
        again = client.put(f"/policies/{drafted['id']}", json={"name": "drafted", **document})
        told.append(step(capsys, "retire", "drafted"))
        retired = client.get(f"/policies/{policy['id']}").json()

    assert len(again.json()["warnings"]) == 1
    assert UNSET in told[0]
    assert told[1:] == ["alone: no version is in force\n", "drafted: no version is in force\n"]
    assert (retired["state"], retired["warnings"]) == ("retired", [])


def step(capsys: pytest.CaptureFixture[str], verb: str, policy: str) -> str:
    assert main(["policy", verb, policy]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def applied(server: AdminServer, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    file = home / "seed.yaml"
    file.write_text(SEED)
    environ = {name: value for name, value in os.environ.items() if "METERHOUSE" not in name}
    environ |= {
        "METERHOUSE_ADMIN_URL": server.url,
        "METERHOUSE_ADMIN_TOKEN": TOKEN,
        "METERHOUSE_HOME": str(home),
    }
    argv = [sys.executable, "-m", "gateway", "apply", "-f", str(file), *words]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)


def test_apply_warns_before_after_and_again_but_applies(sqlite_url: str, tmp_path: Path) -> None:
    with admin_server(sqlite_url, jurisdictions=frozenset()) as server:
        runs = [applied(server, tmp_path, *words) for words in (["--dry-run"], [], ["--json"])]

    for run in runs:
        assert run.returncode == 0, run.stderr
        (warning,) = run.stderr.splitlines()
        assert warning.startswith("meterhouse: warning: policy acme eu: ")
        assert UNSET in warning
    steps = json.loads(runs[2].stdout)["steps"]
    assert [UNSET in "".join(step.get("warnings", ())) for step in steps] == [False, True, False]


def test_apply_says_nothing_where_the_gateway_may_serve(sqlite_url: str, tmp_path: Path) -> None:
    with admin_server(sqlite_url, jurisdictions=frozenset({"DE"})) as server:
        run = applied(server, tmp_path)

    assert (run.returncode, run.stderr) == (0, "")


def warnings(home: Path, **settings: str) -> list[Finding]:
    told = {"METERHOUSE_HOME": str(home), "METERHOUSE_PORT": "0"} | settings
    found = diagnose(Settings.from_env(told))
    return [each for each in found if each.part == "residency" and each.state != "ok"]


def test_doctor_warns_of_active_policies_that_would_refuse_everything(tmp_path: Path) -> None:
    home = tmp_path / "home"
    secrets.make_private(home)
    with admin_server(f"sqlite:///{home / 'meterhouse.db'}") as server:
        assert applied(server, tmp_path).returncode == 0

    (unset,) = warnings(home)
    (abroad,) = warnings(home, METERHOUSE_JURISDICTION="US")
    assert unset.state == "warning"
    assert "acme eu" in unset.found
    assert UNSET in unset.found
    assert "METERHOUSE_JURISDICTION=" in unset.remedy
    assert "stands in US" in abroad.found
    assert warnings(home, METERHOUSE_JURISDICTION="DE") == []

    endpoints = home / "run" / "endpoints.json"
    secrets.write_private(endpoints, json.dumps({"jurisdictions": ["DE"]}))
    assert warnings(home) == []
