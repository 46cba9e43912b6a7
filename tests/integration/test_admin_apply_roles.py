"""`apply` and `export` with the token of a tenant: its own house, and nobody else's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commands import documents
from gateway.commands.export import exported
from gateway.commands.reconcile import Reconciler, Step
from gateway.commands.remote import Remote, RemoteError
from gateway.stores.sql import configuration
from tests.admin_server import TOKEN, AdminServer, Made, admin_server

HOUSE = """
{kind: tenant, name: acme, currency: EUR, timezone: UTC}
---
{kind: tenant, name: globex, currency: EUR, timezone: UTC}
---
{kind: team, tenant: acme, name: support}
---
{kind: team, tenant: globex, name: lab}
---
{kind: key, tenant: acme, team: support, name: bot}
---
{kind: key, tenant: globex, team: lab, name: bot}
---
{kind: backend, name: eu, base_url: "http://127.0.0.1:9/v1", region: eu}
---
{kind: model, name: chat, targets: [{backend: eu, upstream_model: m}]}
---
{kind: price, book: charge, tenant: acme, model: chat, meter: input, amount_per_million: "1",
 currency: EUR, effective_from: "2026-01-01T00:00:00Z"}
---
{kind: policy, name: cheap, scope: {tenant: acme, team: support}, prefer: cheapest, activate: true}
---
{kind: budget, scope: {tenant: acme}, amount: "10", period: month}
---
{kind: limit, scope: {tenant: globex, team: lab}, requests_per_minute: 5}
"""


@pytest.fixture
def server(sqlite_url: str, tmp_path: Path) -> Iterator[AdminServer]:
    with admin_server(sqlite_url) as server, Remote(server.url, TOKEN) as remote:
        apply(remote, tmp_path, HOUSE)
        yield server


@pytest.fixture
def remote(server: AdminServer) -> Iterator[Remote]:
    """Of a tenant_admin of acme."""
    with Remote(server.url, secret_of(server, "tenant_admin", "tenant", "acme")) as remote:
        yield remote


def secret_of(server: AdminServer, role: str, kind: str, name: str) -> str:
    with server.client() as client:
        (found,) = client.get(f"/{kind}s", params={"name": name}).json()["items"]
        scope = {kind: found["id"]}
        made = Made(client)
        return str(made.make("admin-tokens", name=made.name(), role=role, scope=scope)["secret"])


def apply(remote: Remote, directory: Path, text: str, *, prune: bool = False) -> list[Step]:
    path = directory / "house.yaml"
    path.write_text(text)
    reconciler = Reconciler(remote, dry_run=False)
    steps = list(reconciler.apply(documents.read([path])))
    return steps + (list(reconciler.prune()) if prune else [])


def actions(steps: list[Step]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for step in steps:
        found.setdefault(step.action, set()).add(f"{step.kind} {step.label}")
    return found


def test_a_tenants_export_is_the_tenants_own_and_applies_unchanged(
    remote: Remote, tmp_path: Path
) -> None:
    written = list(exported(remote))

    again = apply(remote, tmp_path, documents.write(written), prune=True)

    assert {each["kind"] for each in written} == {
        "tenant", "team", "key", "price", "policy", "budget",
    }  # fmt: skip
    assert "globex" not in documents.write(written)
    assert set(actions(again)) == {"unchanged"}


def test_a_tenant_applies_what_is_its_own(
    server: AdminServer, remote: Remote, tmp_path: Path
) -> None:
    text = documents.write(exported(remote)).replace("'10'", '"20"')
    more = "---\n{kind: team, tenant: acme, parent: support, name: tier-2}\n"

    steps = actions(apply(remote, tmp_path, text + more))

    assert steps["create"] == {"team acme/tier-2"}
    assert steps["update"] == {"budget acme month"}
    (budget,) = configuration.load(server.engine).budgets
    assert budget.amount == "20"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{kind: tenant, name: new, currency: EUR, timezone: UTC}", "may not make a tenant"),
        (
            '{kind: backend, name: eu, base_url: "http://127.0.0.1:9/v1", region: eu}',
            "a tenant_admin's and may not make a backend",
        ),
        (
            (
                "{kind: price, book: charge, tenant: acme, model: chat, meter: input,"
                ' amount_per_million: "0", currency: EUR}'
            ),
            "may not make a price",
        ),
        ("{kind: team, tenant: globex, name: x}", "there is no tenant 'globex'"),
        (
            '{kind: budget, scope: {tenant: globex}, amount: "1", period: day}',
            "there is no tenant 'globex'",
        ),
    ],
)
def test_what_is_not_a_tenants_own_is_refused_before_anything_is_changed(
    remote: Remote, tmp_path: Path, document: str, message: str
) -> None:
    with pytest.raises(documents.DocumentFault, match=message):
        apply(remote, tmp_path, document)


def test_prune_leaves_what_the_token_has_no_right_to(
    server: AdminServer, remote: Remote, tmp_path: Path
) -> None:
    steps = actions(apply(remote, tmp_path, "", prune=True))

    now = configuration.load(server.engine)
    assert steps["delete"] == {
        "budget acme month", "policy acme/support cheap", "key acme/support/bot",
        "team acme/support",
    }  # fmt: skip
    assert {each.name for each in now.tenants} == {"acme", "globex"}
    assert [each.name for each in now.teams] == ["lab"]
    assert len(now.prices) == len(now.backends) == len(now.models) == 1


def test_prune_knows_that_tokens_hold_on_to_their_teams(
    server: AdminServer, remote: Remote, tmp_path: Path
) -> None:
    secret_of(server, "team_admin", "team", "support")
    reconciler = Reconciler(remote, dry_run=True)
    list(reconciler.apply(documents.read([])))

    with pytest.raises(Exception, match="team acme/support: admin tokens refer to it"):
        list(reconciler.prune())


def test_prune_knows_that_alert_channels_hold_on_to_their_teams(
    server: AdminServer, remote: Remote
) -> None:
    (team,) = [each for each in remote.all("teams") if each["name"] == "support"]
    hook = {"url": "https://hooks.example.com/x", "secret": "s" * 16, "name": "hook"}
    with server.client() as platform:
        Made(platform).make("alert-channels", **hook, scope={"team": team["id"]})
    reconciler = Reconciler(remote, dry_run=True)
    list(reconciler.apply(documents.read([])))

    with pytest.raises(Exception, match="team acme/support: alert channels refer to it"):
        list(reconciler.prune())


def test_a_team_admin_is_told_that_documents_begin_with_a_tenant(server: AdminServer) -> None:
    secret = secret_of(server, "team_admin", "team", "support")

    with Remote(server.url, secret) as remote, pytest.raises(RemoteError, match="of a team"):
        list(exported(remote))
