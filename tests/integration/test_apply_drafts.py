"""What `apply` says of a policy that it only drafts, and of one that can hardly be meant; and that
it reads pipes.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commands import documents
from gateway.commands.reconcile import Reconciler, Step
from gateway.commands.remote import Remote
from tests.admin_server import TOKEN, AdminServer, admin_server

HOUSE = """
{kind: tenant, name: acme, currency: EUR, timezone: UTC}
---
{kind: policy, name: drafted, scope: {tenant: acme}}
---
{kind: policy, name: kept, scope: {tenant: acme}, activate: true, require: {residency: [EU, NO]}}
"""
DRAFT = """
kind: policy
name: kept
scope: {tenant: acme}
match: {models: [chta]}
require: {residency: [%s]}
"""


@pytest.fixture
def server(sqlite_url: str) -> Iterator[AdminServer]:
    with admin_server(sqlite_url) as server:
        yield server


@pytest.fixture
def remote(server: AdminServer) -> Iterator[Remote]:
    with Remote(server.url, TOKEN) as remote:
        yield remote


def applied(remote: Remote, path: Path, text: str, *, dry_run: bool = False) -> list[Step]:
    path.write_text(text)
    return list(Reconciler(remote, dry_run=dry_run).apply(documents.read([path])))


def test_a_policy_that_is_only_drafted_says_what_stays_in_force(
    remote: Remote, tmp_path: Path
) -> None:
    path = tmp_path / "policies.yaml"
    _, drafted, kept = applied(remote, path, HOUSE)
    assert drafted.note.startswith("version 1 is a draft: nothing is in force by it")
    assert kept.note == ""

    for residency, version in (("DE", 2), ("FR", 3)):
        imagined = applied(remote, path, DRAFT % residency, dry_run=True)
        done = applied(remote, path, DRAFT % residency)
        assert imagined == done
        (step,) = done
        assert step.action == "update"
        assert step.note.startswith(f"version {version} is a draft: version 1 stays in force")
        assert step.note in "".join(step.lines())
        (before,) = [before for field, before, _ in step.changes if field == "require"]
        assert before == {"residency": ["EU", "NO"]}, "against what is in force"
        assert any("'chta'" in said for said in step.warnings)

    (again,) = applied(remote, path, DRAFT % "FR")
    assert (again.action, again.note.partition(":")[0]) == ("unchanged", "version 3 is a draft")


@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
def test_documents_may_come_from_a_pipe(server: AdminServer, tmp_path: Path, source: str) -> None:
    environ = {name: value for name, value in os.environ.items() if "METERHOUSE" not in name}
    environ |= {
        "METERHOUSE_ADMIN_URL": server.url,
        "METERHOUSE_ADMIN_TOKEN": TOKEN,
        "METERHOUSE_HOME": str(tmp_path),
    }
    argv = [sys.executable, "-m", "gateway", "apply", "--dry-run", "-f", source]

    told = subprocess.run(
        argv, env=environ, input=HOUSE, capture_output=True, text=True, check=False
    )

    assert told.returncode == 0, told.stderr
    assert "would be: 3 create" in told.stdout
    assert "the API was not asked" not in told.stdout
