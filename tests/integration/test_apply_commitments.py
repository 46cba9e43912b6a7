"""Commitments as documents: agreed once, rehearsed, exported, applied elsewhere, not cut short."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.commands import documents
from gateway.commands.documents import DocumentFault
from gateway.commands.export import exported
from gateway.commands.reconcile import Reconciler, Step
from gateway.commands.remote import Remote
from tests.admin_server import TOKEN, AdminServer, Made, admin_server

HOUSE = "{kind: tenant, name: acme, currency: EUR, timezone: Europe/Berlin}"
BEGUN = """
---
{kind: commitment, tenant: acme, amount: 300.00, term: quarter, first_day: 2026-07-16}
"""
TO_COME = """
---
kind: commitment
tenant: acme
amount: 450
term: year
first_day: 2999-01-01
last_day: 3000-12-31
prepaid: true
overage_percent: 80
rollover_percent: 12.50
"""
DRAFT = """
---
{kind: commitment, tenant: acme, amount: 9, term: month, first_day: 2999-01-01, overage_percent: 10,
 state: draft}
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
def file(tmp_path: Path) -> Path:
    return tmp_path / "house.yaml"


def applied(remote: Remote, file: Path, text: str, *, dry_run: bool = False) -> list[Step]:
    file.write_text(text)
    return list(Reconciler(remote, dry_run=dry_run).apply(documents.read([file])))


def actions(steps: list[Step]) -> list[str]:
    return [f"{step.action} {step.label}" for step in steps if step.action != "unchanged"]


def exports(remote: Remote) -> list[dict[str, Any]]:
    return list(exported(remote))


def test_they_are_agreed_once_as_was_rehearsed_and_make_the_same_elsewhere(
    remote: Remote, file: Path, tmp_path: Path
) -> None:
    whole = HOUSE + BEGUN + TO_COME + DRAFT
    imagined = applied(remote, file, whole, dry_run=True)
    assert list(remote.all("commitments")) == []

    steps = applied(remote, file, whole)

    assert actions(imagined) == actions(steps)
    assert actions(steps) == [
        "create acme", "create acme 300 a quarter from 2026-07-16",
        "create acme 450 a year from 2999-01-01", "create acme 9 a month from 2999-01-01",
    ]  # fmt: skip
    assert actions(applied(remote, file, whole)) == []
    there = exports(remote)
    assert there[1:] == [
        {"kind": "commitment", "tenant": "acme", "amount": "300", "term": "quarter",
         "first_day": "2026-07-16"},
        {"kind": "commitment", "tenant": "acme", "amount": "450", "term": "year",
         "first_day": "2999-01-01", "last_day": "3000-12-31", "prepaid": True,
         "overage_percent": "80", "rollover_percent": "12.5"},
        {"kind": "commitment", "tenant": "acme", "amount": "9", "term": "month",
         "first_day": "2999-01-01", "overage_percent": "10", "state": "draft"},
    ]  # fmt: skip
    other_url = f"sqlite:///{tmp_path / 'other.sqlite'}"
    with admin_server(other_url) as other, Remote(other.url, TOKEN) as elsewhere:
        applied(elsewhere, file, documents.write(there))
        assert actions(applied(elsewhere, file, documents.write(there))) == []
        assert exports(elsewhere) == there


def test_what_has_begun_stays_what_is_to_come_may_change_and_no_term_is_cut(
    remote: Remote, file: Path
) -> None:
    applied(remote, file, HOUSE + BEGUN + TO_COME)

    with pytest.raises(DocumentFault, match=r"in force since 2026-07-16 and never .* later fir"):
        applied(remote, file, HOUSE + BEGUN.replace("300.00", "301"))
    inside = BEGUN.replace("2026-07-16", "2998-02-01")
    with pytest.raises(DocumentFault, match="a term that was agreed is not cut short"):
        applied(remote, file, HOUSE + BEGUN + TO_COME + inside, dry_run=True)
    odd = TO_COME.replace("overage_percent: 80", "overage_percent: 8")
    with pytest.raises(DocumentFault, match="at 8 percent of its price is under half"):
        applied(remote, file, HOUSE + BEGUN + odd, dry_run=True)
    with pytest.raises(DocumentFault, match="the same object is described twice"):
        applied(remote, file, HOUSE + BEGUN + TO_COME + TO_COME)
    more = applied(remote, file, HOUSE + BEGUN + TO_COME.replace("amount: 450", "amount: 500"))

    (changed,) = (step for step in more if step.action == "update")
    assert changed.changes == (("amount", "450", "500"),)


def test_a_draft_that_is_meant_to_be_in_force_is_approved_and_prune_takes_drafts(
    remote: Remote, file: Path
) -> None:
    draft = TO_COME + "state: draft"
    applied(remote, file, HOUSE + draft)

    steps = applied(remote, file, HOUSE + TO_COME)
    applied(remote, file, HOUSE + TO_COME + DRAFT)
    file.write_text(HOUSE)
    reconciler = Reconciler(remote, dry_run=False)
    list(reconciler.apply(documents.read([file])))

    assert [step.changes for step in steps if step.action == "update"] == [
        (("state", "draft", "approved"),)
    ]
    assert actions(list(reconciler.prune())) == ["delete acme 9 a month from 2999-01-01"]
    assert [each["state"] for each in remote.all("commitments")] == ["approved"]


def test_a_tenants_admin_takes_it_home_and_agrees_on_nothing_with_himself(
    server: AdminServer, remote: Remote, file: Path
) -> None:
    applied(remote, file, HOUSE + BEGUN)
    (acme,) = remote.all("tenants")
    with server.client() as client:
        role: dict[str, Any] = {"role": "tenant_admin", "scope": {"tenant": acme["id"]}}
        secret = Made(client).make("admin-tokens", name="ada", **role)["secret"]

    with Remote(server.url, secret) as own:
        assert exports(own) == exports(remote)
        assert actions(applied(own, file, HOUSE + BEGUN)) == []
        for dry_run in (True, False):
            with pytest.raises(DocumentFault, match="a tenant_admin's and may not make a commit"):
                applied(own, file, HOUSE + BEGUN + TO_COME, dry_run=dry_run)
