"""Configuration as files: applied, shown as differences, exported and applied again."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commands import documents
from gateway.commands.export import exported
from gateway.commands.reconcile import Reconciler, Step
from gateway.commands.remote import Remote, RemoteError
from gateway.stores.sql import configuration
from tests.admin_server import TOKEN, AdminServer, admin_server

HOUSE = """
{kind: limit, scope: {tenant: acme}, requests_per_minute: 600, tokens_per_day: 10000000}
---
kind: budget
scope: {tenant: acme, team: support}
amount: 250.10
period: month
thresholds: [50, 90]
---
kind: grant
scope: {tenant: acme, team: support}
amount: 20.50
until: 2098-12-31T23:00:00+01:00
approver: Ada
reason: the launch
---
kind: budget
scope: {key: bot}
amount: 3
period: day
mode: soft
---
kind: policy
name: eu-support
scope: {team: support}
activate: true
match: {models: [chat]}
require: {residency: [EU, NO], capabilities: [chat], data_classes: [health]}
slo: {ttft_p95_ms: 800, total_p95_ms: 9000, percentile: 90, window_s: 30, on_breach: shed}
cost: {max_per_request: 0.05, max_output_per_million: 15.00}
prefer: [on_prem, edge, cloud]
budget: {clamp: on, least_output: 64}
idempotency: {store_answers: on, keep_seconds: 60}
experiment: {name: next, shadow: {model: chat-2, percent: 5, payer: {team: tier-2, key: bot}}}
---
kind: policy
name: drafted
scope: {tenant: globex}
match:
  tags: {env: prod, job: [nightly, weekly]}
  hours: {from: 22:00, to: 06:00, days: [sat, sun]}
  stream: true
  input_tokens: {at_most: 8000}
prefer: weighted
weights: {eu: 9, us: 0}
---
kind: price
book: charge
model: chat
meter: input
amount_per_million: 0.10
currency: EUR
effective_from: 2026-01-01T00:00:00+01:00
---
kind: price
book: cost
backend: eu
upstream_model: smol
meter: output
amount_per_million: 1.50
currency: EUR
---
kind: price
book: charge
tenant: acme
model: chat
meter: output
amount_per_million: 2
currency: EUR
effective_from: 2026-02-01T00:00:00Z
state: draft
---
kind: model
name: chat
targets:
  - {backend: eu, upstream_model: smol, weight: 2}
  - {backend: us, upstream_model: smol}
capabilities: [tools, chat]
context_window: 8192
---
kind: backend
name: eu
base_url: http://127.0.0.1:9001/v1/
region: eu-central
jurisdictions: [NO, DE]
data_classes: [personal, health]
placement: on_prem
---
kind: backend
name: us
base_url: https://us.example.com/v1
region: us-east
jurisdictions: [US]
max_concurrency: 4
---
kind: key
team: tier-2
name: bot
expires_at: 2099-01-01T00:00:00+00:00
scopes: {models: [chat], cidrs: [10.0.0.0/8]}
---
kind: team
tenant: acme
parent: support
name: tier-2
---
kind: team
tenant: acme
name: support
cost_center: 4711
weight: 7
---
kind: tenant
name: acme
currency: EUR
timezone: Europe/Berlin
tag_names: [feature, app]
---
kind: tenant
name: globex
currency: USD
timezone: America/New_York
"""


@pytest.fixture
def server(sqlite_url: str) -> Iterator[AdminServer]:
    with admin_server(sqlite_url) as server:
        yield server


@pytest.fixture
def remote(server: AdminServer) -> Iterator[Remote]:
    with Remote(server.url, TOKEN) as remote:
        yield remote


@pytest.fixture
def house(tmp_path: Path) -> Path:
    path = tmp_path / "house.yaml"
    path.write_text(HOUSE.replace("4711", '"4711"'))
    return path


def apply(remote: Remote, *paths: Path, dry_run: bool = False, prune: bool = False) -> list[Step]:
    reconciler = Reconciler(remote, dry_run=dry_run)
    steps = list(reconciler.apply(documents.read(paths)))
    return steps + (list(reconciler.prune()) if prune else [])


def actions(steps: list[Step]) -> set[str]:
    return {step.action for step in steps}


def test_documents_in_any_order_become_objects_with_names_for_ids(
    server: AdminServer, remote: Remote, house: Path
) -> None:
    steps = apply(remote, house)

    found = configuration.load(server.engine)
    assert actions(steps) == {"create"}
    assert len(steps) == 17
    assert {tenant.name for tenant in found.tenants} == {"acme", "globex"}
    support, tier2 = sorted(found.teams, key=lambda team: team.name)
    assert (tier2.parent_id, support.cost_center) == (support.id, "4711")
    assert (tier2.weight, support.weight) == (1, 7)
    assert [budget.amount for budget in found.budgets] == ["250.10", "3"]
    assert [policy.name for policy in found.policies] == ["eu-support"]
    assert {price.amount_per_million for price in found.prices} == {"0.10", "1.50"}
    assert found.backends[0].jurisdictions == ("DE", "NO")
    (secret,) = [step.secret for step in steps if step.secret]
    assert secret.startswith("mh_")


def test_applying_again_changes_nothing(server: AdminServer, remote: Remote, house: Path) -> None:
    apply(remote, house)
    revision = configuration.revision(server.engine)

    again = apply(remote, house, prune=True)

    assert actions(again) == {"unchanged"}
    assert configuration.revision(server.engine) == revision


def test_an_export_applied_elsewhere_makes_the_same_house(
    remote: Remote, house: Path, tmp_path: Path
) -> None:
    apply(remote, house)
    written = list(exported(remote))
    copy = tmp_path / "copy.yaml"
    copy.write_text(documents.write(written))

    same = apply(remote, copy, prune=True)
    with (
        admin_server(f"sqlite:///{tmp_path / 'other.db'}") as other,
        Remote(other.url, TOKEN) as elsewhere,
    ):
        made = apply(elsewhere, copy)
        again = list(exported(elsewhere))

    assert actions(same) == {"unchanged"}
    assert actions(made) == {"create"}
    assert again == written


def test_a_dry_run_shows_the_same_steps_and_does_none(
    server: AdminServer, remote: Remote, house: Path
) -> None:
    imagined = apply(remote, house, dry_run=True)
    assert configuration.load(server.engine).tenants == ()
    done = apply(remote, house)

    assert [(step.action, step.label) for step in imagined] == [
        (step.action, step.label) for step in done
    ]


def test_a_difference_is_named_field_by_field_and_applied(
    server: AdminServer, remote: Remote, house: Path
) -> None:
    apply(remote, house)
    house.write_text(house.read_text().replace("600", "700").replace("weight: 2", "weight: 5"))

    shown = [step for step in apply(remote, house, dry_run=True) if step.action != "unchanged"]
    done = [step for step in apply(remote, house) if step.action != "unchanged"]

    assert shown == done
    assert [(step.kind, step.label) for step in done] == [("model", "chat"), ("limit", "acme")]
    assert done[1].changes == (("requests_per_minute", 600, 700),)
    assert configuration.load(server.engine).limits[0].requests_per_minute == 700


def test_a_changed_policy_is_drafted_and_put_in_force(
    server: AdminServer, remote: Remote, house: Path
) -> None:
    apply(remote, house)
    house.write_text(house.read_text().replace("[EU, NO]", "[NO]"))

    steps = [step for step in apply(remote, house) if step.action != "unchanged"]

    (policy,) = configuration.load(server.engine).policies
    assert [step.label for step in steps] == ["acme/support eu-support"]
    assert policy.policy_version == 2
    assert b'"residency":["NO"]' in policy.document


def test_a_new_price_without_a_date_follows_the_old_one(
    server: AdminServer, remote: Remote, house: Path
) -> None:
    apply(remote, house)
    house.write_text(house.read_text().replace("1.50", "1.75"))

    apply(remote, house)

    prices = configuration.load(server.engine).prices
    cost = [each.amount_per_million for each in prices if each.book == "cost"]
    assert sorted(cost) == ["1.50", "1.75"]


def test_prune_deletes_what_no_document_names_innermost_first(
    server: AdminServer, remote: Remote, house: Path
) -> None:
    drafted = re.sub("(?<=kind: price\n)", "state: draft\n", HOUSE.replace("\nstate: draft", ""))
    house.write_text(drafted.replace("4711", '"4711"'))
    apply(remote, house)
    kept = house.with_name("kept.yaml")
    kept.write_text("kind: tenant\nname: globex\ncurrency: USD\ntimezone: America/New_York\n")

    steps = apply(remote, kept, prune=True)

    found = configuration.load(server.engine)
    assert [tenant.name for tenant in found.tenants] == ["globex"]
    assert found.teams == found.keys == found.backends == found.budgets == ()
    assert [step.kind for step in steps if step.action == "delete"][-1] == "tenant"


A_TENANT = "kind: tenant\nname: t\ncurrency: EUR\ntimezone: UTC\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: planet\n", "`kind` must be one of"),
        ("[1, 2", "is not YAML"),
        ("kind: tenant\nname: a\nname: b\n", "'name' is given twice"),
        ("kind: team\nname: x\ntenant: nobody\n", "there is no tenant 'nobody'"),
        ("kind: tenant\nname: a\ncurrency: EUR\n", "timezone: this field is required"),
        ("kind: team\nname: a\n", "tenant: this field is required"),
        (
            f"{A_TENANT}---\nkind: budget\nscope: {{tenant: t}}\namount: much\nperiod: decade\n",
            (
                'amount: must be an exact amount such as "12.50", not "much"; '
                "period: must be one of day, week, month"
            ),
        ),
        ("kind: tenant\nname: 5\ncurrency: EUR\ntimezone: UTC\n", "put it in quotes"),
        ("kind: limit\nscope: {}\nrequests_per_minute: 1\n", "a scope names a tenant"),
        (
            (
                "kind: team\ntenant: t\nname: a\nparent: b\n---\n"
                "kind: team\ntenant: t\nname: b\nparent: a\n"
            ),
            "inside one another",
        ),
    ],
)
def test_a_document_that_cannot_be_meant_is_refused_by_place_and_reason(
    remote: Remote, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)

    with pytest.raises(documents.DocumentFault) as refused:
        apply(remote, path)

    assert message in str(refused.value)
    assert "wrong.yaml" in str(refused.value)


def test_a_revoked_key_does_not_come_back_under_its_name(remote: Remote, house: Path) -> None:
    apply(remote, house)
    (key,) = remote.all("keys")
    remote.call("POST", f"/keys/{key['id']}/revoke")

    with pytest.raises(documents.DocumentFault, match="revoked for ever"):
        apply(remote, house)


def test_a_gateway_that_is_not_there_is_named_with_what_to_do() -> None:
    with (
        Remote("http://127.0.0.1:9", TOKEN) as remote,
        pytest.raises(RemoteError, match="meterhouse up"),
    ):
        list(remote.all("tenants"))


def command(server: AdminServer, *words: str, home: Path) -> subprocess.CompletedProcess[str]:
    """`meterhouse ...` as a user types it, against this server."""
    environ = {name: value for name, value in os.environ.items() if "METERHOUSE" not in name}
    environ |= {
        "METERHOUSE_ADMIN_URL": server.url,
        "METERHOUSE_ADMIN_TOKEN": TOKEN,
        "METERHOUSE_HOME": str(home),
    }
    argv = [sys.executable, "-m", "gateway", *words]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)


def test_the_commands_do_the_same_from_the_shell(
    server: AdminServer, house: Path, tmp_path: Path
) -> None:
    applied = command(server, "apply", "-f", str(house), "--json", home=tmp_path)
    assert applied.returncode == 0, applied.stderr
    assert len(json.loads(applied.stdout)["steps"]) == 17

    words = command(server, "apply", "-f", str(house), "--dry-run", home=tmp_path)
    assert words.stdout.endswith("would be: 17 unchanged\n")

    told = command(server, "export", home=tmp_path)
    assert "kind: tenant\nname: acme\n" in told.stdout

    new = command(server, "key", "create", "--team", "support", "--name", "cli", home=tmp_path)
    assert new.stdout.startswith("mh_")
    rotated = command(server, "key", "rotate", "acme/support/cli", "--json", home=tmp_path)
    assert json.loads(rotated.stdout)["secret"] != new.stdout.strip()
    revoked = command(server, "key", "revoke", "cli", home=tmp_path)
    assert "is revoked" in revoked.stdout


def test_exit_codes_tell_a_refusal_from_a_wrong_command(
    server: AdminServer, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("kind: tenant\nname: a\ncurrency: XXX\ntimezone: UTC\n")

    refused = command(server, "apply", "-f", str(wrong), home=tmp_path)
    absent = command(server, "apply", "-f", str(tmp_path / "absent.yaml"), home=tmp_path)
    unclear = command(server, "apply", home=tmp_path)

    assert (refused.returncode, absent.returncode, unclear.returncode) == (1, 2, 2)
    assert "currency" in refused.stderr
