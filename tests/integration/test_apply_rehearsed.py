"""`apply` tells all that is wrong at once, and a dry run asks the API, which changes nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.commands import documents
from gateway.commands.documents import Document, DocumentFault
from gateway.commands.reconcile import Reconciler, Step
from gateway.commands.rehearsal import Rehearsal
from gateway.commands.remote import Remote
from gateway.stores.sql import configuration
from tests.admin_server import TOKEN, AdminServer, Made, admin_server

HOUSE = """
{kind: tenant, name: acme, currency: EUR, timezone: UTC}
---
{kind: team, tenant: acme, name: support}
---
{kind: team, tenant: acme, parent: support, name: night}
---
{kind: key, tenant: acme, team: night, name: bot}
---
{kind: backend, name: eu, base_url: "http://127.0.0.1:9/v1", region: eu}
---
{kind: model, name: chat, targets: [{backend: eu, upstream_model: m}]}
---
{kind: price, book: charge, tenant: acme, model: chat, meter: input, amount_per_million: "1",
 currency: EUR, effective_from: "2026-01-01T00:00:00Z"}
---
{kind: policy, name: fast, scope: {tenant: acme, team: support}, prefer: fastest,
 weights: {eu: 5}, activate: true}
---
{kind: budget, scope: {tenant: acme, team: night}, amount: "10", period: month}
---
{kind: limit, scope: {tenant: acme, team: night, key: bot}, requests_per_minute: 5}
"""

WRONG = """
{kind: tenant, name: acme, currency: EUR, timezone: UTC}
---
{kind: tenant, name: globex, currency: EUR, timezone: Mars/Olympus}
---
{kind: team, tenant: globex, name: lab}
---
{kind: team, tenant: initech, name: lab}
---
{kind: budget, scope: {tenant: globex, team: lab}, amount: "1", period: month}
---
{kind: budget, scope: {tenant: acme}, amount: "10.12345678901", period: month, thresholds: [80, 50],
 currency: USD}
---
{kind: budget, scope: {tenant: nobody}, amount: much, period: decade}
---
{kind: policy, name: odd, scope: {tenant: acme}, prefer: cheap, retries: {max_attempts: 0}}
---
{kind: model, name: chat, targets: [{backend: one, upstream_model: m},
 {backend: two, upstream_model: m}]}
"""


@pytest.fixture
def server(sqlite_url: str) -> Iterator[AdminServer]:
    with admin_server(sqlite_url) as server:
        yield server


@pytest.fixture
def remote(server: AdminServer) -> Iterator[Remote]:
    with Remote(server.url, TOKEN) as remote:
        yield remote


def steps(remote: Remote, directory: Path, text: str, *, dry_run: bool) -> list[Step]:
    path = directory / "house.yaml"
    path.write_text(text)
    return list(Reconciler(remote, dry_run=dry_run).apply(documents.read([path])))


def state(server: AdminServer, remote: Remote) -> tuple[Any, ...]:
    """All that a change would leave behind."""
    audited = len(list(remote.all("audit")))
    return configuration.revision(server.engine), audited, list(server.published)


def test_all_that_is_wrong_with_all_documents_is_told_at_once(
    server: AdminServer, remote: Remote, tmp_path: Path
) -> None:
    before = state(server, remote)

    with pytest.raises(DocumentFault) as refused:
        steps(remote, tmp_path, WRONG, dry_run=True)

    told = [each.partition("house.yaml, ")[2] for each in refused.value.faults]
    for place, said in (
        ("document 2 (tenant)", "timezone: "),
        ("document 4 (team)", "tenant: there is no tenant 'initech'"),
        ("document 6 (budget)", "currency: the tenant's currency is EUR"),
        ("document 6 (budget)", "amount: "),
        ("document 6 (budget)", "thresholds: must rise"),
        ("document 7 (budget)", "scope: there is no tenant 'nobody'"),
        ("document 7 (budget)", "amount: must be an exact amount"),
        ("document 7 (budget)", "period: must be one of"),
        ("document 8 (policy)", "prefer"),
        ("document 8 (policy)", "retries.max_attempts"),
        ("document 9 (model)", "there is no backend 'one'"),
        ("document 9 (model)", "there is no backend 'two'"),
    ):
        assert any(each.startswith(place) and said in each for each in told), (place, said, told)
    assert len(told) == 12, "what only names what is broken is not at fault itself"
    assert str(refused.value).startswith("12 faults, and nothing was changed:\n")
    assert state(server, remote) == before


def test_a_dry_run_of_a_whole_house_is_judged_by_the_api_and_changes_nothing(
    server: AdminServer, remote: Remote, tmp_path: Path
) -> None:
    before = state(server, remote)
    imagined = steps(remote, tmp_path, HOUSE, dry_run=True)
    assert state(server, remote) == before
    assert list(remote.all("tenants")) == []

    done = steps(remote, tmp_path, HOUSE, dry_run=False)
    assert [(each.action, each.label) for each in imagined] == [
        (each.action, each.label) for each in done
    ]
    before = state(server, remote)
    changed = HOUSE.replace('amount: "10"', 'amount: "20"').replace("fastest", "balanced")
    assert {s.action for s in steps(remote, tmp_path, changed, dry_run=True)} == {
        "update", "unchanged"
    }  # fmt: skip
    assert state(server, remote) == before


def test_what_only_the_api_refuses_keeps_an_apply_from_beginning(
    server: AdminServer, tmp_path: Path
) -> None:
    path = tmp_path / "house.yaml"
    path.write_text(HOUSE.replace("period: month}", "period: month, thresholds: [80, 50]}"))
    environ = {name: value for name, value in os.environ.items() if "METERHOUSE" not in name}
    environ |= {
        "METERHOUSE_ADMIN_URL": server.url,
        "METERHOUSE_ADMIN_TOKEN": TOKEN,
        "METERHOUSE_HOME": str(tmp_path),
    }
    argv = [sys.executable, "-m", "gateway", "apply", "--json", "-f", str(path)]

    told = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)

    assert told.returncode == 1
    answer = json.loads(told.stdout)
    assert answer["steps"] == []
    (fault,) = answer["faults"]
    assert fault.endswith("document 9 (budget): thresholds: must rise, each of them given once")
    with server.client() as client:
        assert client.get("/tenants").json()["items"] == []


def test_more_than_the_api_takes_at_a_time_is_not_asked_and_that_is_said(remote: Remote) -> None:
    asking = Rehearsal(remote)
    asking.document = Document("tenant", "house.yaml, document 1", {})
    for number in range(501):
        asking.add("POST", "/tenants", {"name": f"n{number}"})

    assert (asking.play(), asking.unasked) == ([], True)


def rehearsed(remote: Remote, *played: dict[str, Any]) -> list[dict[str, Any]]:
    views = remote.call("POST", "/rehearsals", {"steps": played}).json()["steps"]
    return list(views)


def test_a_step_that_names_what_could_not_be_made_is_not_judged(remote: Remote) -> None:
    tenant, team = "tenant_" + "a" * 26, "team_" + "b" * 26
    made = {"method": "POST", "path": "/tenants", "as": tenant}
    inside = {
        "method": "POST", "path": "/teams", "as": team, "body": {"tenant_id": tenant, "name": "t"}
    }  # fmt: skip
    key = {"method": "POST", "path": "/keys", "body": {"team_id": team, "name": "k"}}
    body = {"name": "n", "currency": "EUR", "timezone": "UTC"}

    whole = rehearsed(remote, made | {"body": body}, inside, key)
    assert [each["status"] for each in whole] == [201, 201, 201]
    twice = rehearsed(remote, made | {"body": body}, made | {"body": body, "as": None})
    assert [each["status"] for each in twice] == [201, 409]
    broken = rehearsed(remote, made | {"body": body | {"currency": "XXX"}}, inside, key)
    assert [each["status"] for each in broken] == [422, None, None]


def test_a_rehearsal_allows_nobody_more_than_a_request_would(
    server: AdminServer, remote: Remote, tmp_path: Path
) -> None:
    steps(remote, tmp_path, HOUSE, dry_run=False)
    (acme,) = remote.all("tenants")
    (limit,) = remote.all("limits")
    with server.client() as client:
        made = Made(client)
        other = made.make("tenants", name="globex", currency="EUR", timezone="UTC")
        tokens = {
            role: str(
                made.make("admin-tokens", name=made.name(), role=role, scope={"tenant": of["id"]})[
                    "secret"
                ]
            )
            for role, of in (("tenant_admin", other), ("auditor", acme))
        }
    budget = {"scope": {"tenant": acme["id"]}, "amount": "1", "period": "day"}
    asked = (
        {"method": "POST", "path": "/budgets", "body": budget},
        {"method": "DELETE", "path": f"/limits/{limit['id']}"},
        {"method": "POST", "path": "/tenants", "body": {"name": "n", "currency": "EUR",
         "timezone": "UTC"}},
    )  # fmt: skip
    for role, answers in (("tenant_admin", [422, 404, 403]), ("auditor", [403, 403, 403])):
        with Remote(server.url, tokens[role]) as his:
            assert [each["status"] for each in rehearsed(his, *asked)] == answers, role
    assert len(list(remote.all("limits"))) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/policies/explain"), ("POST", "/nowhere"), ("DELETE", "/tenants"),
     ("POST", "/admin-tokens"), ("POST", "/rehearsals")],
)  # fmt: skip
def test_what_cannot_be_rehearsed_is_refused(server: AdminServer, method: str, path: str) -> None:
    with server.client() as client:
        answer = client.post("/rehearsals", json={"steps": [{"method": method, "path": path}]})
    assert answer.status_code == 422
    assert "cannot be rehearsed" in answer.json()["detail"]
