"""`apply --prune`: all of it or nothing, foreseen by its dry run, and an export prunes nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commands import documents
from gateway.commands.export import exported
from gateway.commands.prune import PruneRefusedError
from gateway.commands.reconcile import Reconciler, Step
from gateway.commands.remote import Remote
from gateway.stores.sql import configuration, usage
from tests.admin_server import TOKEN, AdminServer, admin_server
from tests.ledger_events import an_event

HOUSE = """
{kind: tenant, name: acme, currency: USD, timezone: UTC}
---
{kind: tenant, name: globex, currency: USD, timezone: UTC}
---
{kind: team, tenant: acme, name: outer}
---
{kind: team, tenant: acme, parent: outer, name: inner}
---
{kind: team, tenant: globex, name: lab}
---
{kind: key, tenant: acme, team: inner, name: bot}
---
{kind: key, tenant: globex, team: lab, name: probe}
---
{kind: backend, name: eu, base_url: "http://127.0.0.1:9/v1", region: eu}
---
{kind: backend, name: us, base_url: "http://127.0.0.1:9/v1", region: us}
---
kind: model
name: chat
targets: [{backend: eu, upstream_model: m}, {backend: us, upstream_model: m}]
---
{kind: policy, name: cheap, scope: {tenant: acme, team: inner}, prefer: cheapest, activate: true}
---
{kind: budget, scope: {tenant: acme, team: inner, key: bot}, amount: "1", period: day}
---
{kind: limit, scope: {tenant: acme, team: inner, key: bot}, requests_per_minute: 5}
"""
PRICE = """---
{kind: price, book: cost, backend: us, upstream_model: m, meter: input, amount_per_million: "1",
 currency: USD, effective_from: "2026-01-01T00:00:00Z"}
"""


@pytest.fixture
def server(sqlite_url: str) -> Iterator[AdminServer]:
    with admin_server(sqlite_url) as server:
        yield server


@pytest.fixture
def remote(server: AdminServer) -> Iterator[Remote]:
    with Remote(server.url, TOKEN) as remote:
        yield remote


def written(directory: Path, text: str) -> Path:
    path = directory / "house.yaml"
    path.write_text(text)
    return path


def without(*words: str, text: str = HOUSE) -> str:
    """The house without the documents in which one of the words stands."""
    parts = text.split("---\n")
    return "---\n".join(part for part in parts if not any(word in part for word in words))


def pruned(remote: Remote, path: Path, *, dry_run: bool = False) -> list[Step]:
    reconciler = Reconciler(remote, dry_run=dry_run)
    steps = [*reconciler.apply(documents.read([path])), *reconciler.prune()]
    return [step for step in steps if step.action != "unchanged"]


def used(server: AdminServer, remote: Remote) -> None:
    """The key `bot` has made a request."""
    (key,) = [each for each in remote.all("keys") if each["name"] == "bot"]
    event = an_event(
        tenant_id=key["tenant_id"], team_path=(key["team_id"],), key_id=key["id"], model="chat"
    )
    usage.record(server.engine, [(event, True)])


def test_what_usage_refers_to_is_foreseen_and_nothing_is_deleted(
    server: AdminServer, remote: Remote, tmp_path: Path
) -> None:
    pruned(remote, written(tmp_path, HOUSE))
    used(server, remote)
    before = configuration.load(server.engine)
    path = written(tmp_path, without("acme", "kind: model", "name: us"))

    for dry_run in (True, False):
        with pytest.raises(PruneRefusedError) as refused:
            pruned(remote, path, dry_run=dry_run)

        message = str(refused.value)
        assert "key acme/inner/bot: usage refers to it; `" in message
        assert "meterhouse key revoke" in message
        assert "team acme/inner: usage refers to it" in message
        assert "tenant acme: usage refers to it" in message
        assert "acme/outer" not in message
        assert "backend us" not in message
    after = configuration.load(server.engine)
    assert after == before


def test_what_only_goes_with_what_refers_to_it_goes_in_the_right_order(
    server: AdminServer, remote: Remote, tmp_path: Path
) -> None:
    pruned(remote, written(tmp_path, HOUSE))
    teams = {each["name"]: each for each in remote.all("teams")}
    newer = remote.call("POST", "/teams", {"tenant_id": teams["outer"]["tenant_id"], "name": "top"})
    moved = teams["outer"] | {"parent_id": newer.json()["id"]}
    remote.call("PUT", f"/teams/{moved['id']}", moved)
    path = written(tmp_path, without("acme", "kind: model", "kind: backend"))

    foreseen = pruned(remote, path, dry_run=True)
    done = pruned(remote, path)

    assert foreseen == done
    assert {step.action for step in done} == {"delete"}
    found = configuration.load(server.engine)
    assert [each.name for each in found.tenants] == ["globex"]
    assert [each.name for each in found.keys] == ["probe"]
    assert found.teams[0].name == "lab"
    assert found.backends == found.models == found.policies == found.budgets == found.limits == ()


def test_a_backend_may_go_once_the_applied_model_no_longer_names_it(
    server: AdminServer, remote: Remote, tmp_path: Path
) -> None:
    """The dry run sees the model as it will be."""
    pruned(remote, written(tmp_path, HOUSE))
    text = without("name: us").replace(", {backend: us, upstream_model: m}", "")
    path = written(tmp_path, text)

    foreseen = pruned(remote, path, dry_run=True)
    done = pruned(remote, path)

    assert foreseen == done
    assert [(step.action, step.label) for step in done] == [("update", "chat"), ("delete", "us")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (without("name: us", text=HOUSE + PRICE), "backend us: prices that were in force"),
        (without("name: inner"), "team acme/inner: key acme/inner/bot"),
    ],
)
def test_what_something_that_stays_refers_to_is_named_with_it(
    server: AdminServer, remote: Remote, tmp_path: Path, text: str, reason: str
) -> None:
    """A price in force is no document's to delete; a document may leave out what another names."""
    pruned(remote, written(tmp_path, HOUSE + PRICE))
    text = text.replace(", {backend: us, upstream_model: m}", "")

    with pytest.raises(PruneRefusedError, match=reason):
        pruned(remote, written(tmp_path, text), dry_run=True)


def test_a_tenant_with_an_invoice_stays(remote: Remote, tmp_path: Path) -> None:
    pruned(remote, written(tmp_path, HOUSE))
    (tenant,) = [each for each in remote.all("tenants") if each["name"] == "globex"]
    remote.call("POST", "/invoices", {"tenant_id": tenant["id"], "period": "2026-11"})

    with pytest.raises(PruneRefusedError, match="tenant globex: invoices refer to it"):
        pruned(remote, written(tmp_path, without("globex")), dry_run=True)


def test_an_export_prunes_nothing_whatever_has_happened(
    server: AdminServer, remote: Remote, tmp_path: Path
) -> None:
    """Revoked keys with what hangs on them, drafts beside approved prices, later versions."""
    pruned(remote, written(tmp_path, HOUSE + PRICE))
    used(server, remote)
    (bot,) = [each for each in remote.all("keys") if each["name"] == "bot"]
    remote.call("POST", f"/keys/{bot['id']}/revoke")
    (price,) = remote.all("prices")
    body = {name: price[name] for name in ("book", "meter", "currency", "backend_id")}
    body |= {"upstream_model": "m", "effective_from": price["effective_from"], "state": "draft"}
    for amount in ("2", "3", "3"):
        remote.call("POST", "/prices", body | {"amount_per_million": amount})
    (policy,) = remote.all("policies")
    remote.call("PUT", f"/policies/{policy['id']}", policy | {"prefer": "fastest"})
    revision = configuration.revision(server.engine)
    path = written(tmp_path, documents.write(exported(remote)))

    assert pruned(remote, path, dry_run=True) == []
    assert pruned(remote, path) == []
    assert configuration.revision(server.engine) == revision
    assert "bot" not in path.read_text()
    assert len(list(remote.all("budgets"))) == len(list(remote.all("limits"))) == 1
    with (
        admin_server(f"sqlite:///{tmp_path / 'other.db'}") as other,
        Remote(other.url, TOKEN) as elsewhere,
    ):
        assert {step.action for step in pruned(elsewhere, path)} == {"create"}


def command(server: AdminServer, *words: str, home: Path) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if "METERHOUSE" not in name}
    environ |= {
        "METERHOUSE_ADMIN_URL": server.url,
        "METERHOUSE_ADMIN_TOKEN": TOKEN,
        "METERHOUSE_HOME": str(home),
    }
    argv = [sys.executable, "-m", "gateway", *words]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)


def test_the_command_changes_nothing_at_all_when_it_could_not_prune(
    server: AdminServer, remote: Remote, tmp_path: Path
) -> None:
    pruned(remote, written(tmp_path, HOUSE))
    used(server, remote)
    text = without("acme") + "---\n{kind: tenant, name: new, currency: USD, timezone: UTC}\n"
    file = str(written(tmp_path, text))
    revision = configuration.revision(server.engine)

    dry = command(server, "apply", "-f", file, "--prune", "--dry-run", home=tmp_path)
    real = command(server, "apply", "-f", file, "--prune", home=tmp_path)
    machine = command(server, "apply", "-f", file, "--prune", "--json", home=tmp_path)

    assert (dry.returncode, real.returncode, machine.returncode) == (1, 1, 1)
    assert "+ tenant new: create" in dry.stdout
    for each in (dry, real):
        assert "key acme/inner/bot: usage refers to it" in each.stderr
    assert "usage refers to it" in json.loads(machine.stdout)["error"]
    assert json.loads(machine.stdout)["steps"] == []
    assert configuration.revision(server.engine) == revision


def test_a_document_that_cannot_be_meant_keeps_all_of_them_from_being_applied(
    server: AdminServer, tmp_path: Path
) -> None:
    text = HOUSE + "---\n{kind: budget, scope: {tenant: nobody}, amount: '1', period: day}\n"
    file = str(written(tmp_path, text))

    refused = command(server, "apply", "-f", file, home=tmp_path)

    assert refused.returncode == 1
    assert "there is no tenant 'nobody'" in refused.stderr
    assert configuration.load(server.engine).tenants == ()
