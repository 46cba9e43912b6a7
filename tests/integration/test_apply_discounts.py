"""Discounts and loop breakers as documents: applied, exported, applied elsewhere, pruned."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.commands import documents
from gateway.commands.documents import DocumentFault
from gateway.commands.export import exported
from gateway.commands.reconcile import Reconciler, Step
from gateway.commands.remote import Remote
from tests.admin_server import TOKEN, AdminServer, admin_server

ORGANISATION = """
{kind: tenant, name: acme, currency: EUR, timezone: UTC}
---
{kind: team, tenant: acme, name: core}
"""
SETTINGS = """
---
{kind: discount, tenant: acme, percent: 12.50, effective_from: 2026-01-01T01:00:00+01:00}
---
kind: discount
tenant: acme
percent: 5
model: chat
meter: output
effective_from: 2999-01-01T00:00:00Z
---
{kind: discount, tenant: acme, percent: 90, model: chat, state: draft}
---
kind: loop-breaker
scope: {tenant: acme}
amount_per_minute: 5.00
action: block
block_minutes: 30
---
{kind: loop-breaker, scope: {team: core}, amount_per_minute: 2}
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
    return [f"{step.action} {step.kind}" for step in steps if step.action != "unchanged"]


def exports(remote: Remote) -> list[dict[str, Any]]:
    return list(exported(remote))


def test_they_are_made_once_and_stay_as_they_are_said_to_be(remote: Remote, file: Path) -> None:
    whole = ORGANISATION + SETTINGS
    imagined = applied(remote, file, whole, dry_run=True)

    steps = applied(remote, file, whole)
    again = applied(remote, file, whole)

    assert actions(imagined) == actions(steps)
    assert [step.label for step in steps if step.kind in {"discount", "loop-breaker"}] == [
        "acme 12.50 %", "acme chat output 5 %", "acme chat 90 %", "acme", "acme/core",
    ]  # fmt: skip
    assert actions(again) == []
    states = [each["state"] for each in remote.all("discounts")]
    assert states == ["approved", "approved", "draft"]


def test_what_is_exported_makes_the_same_elsewhere(
    remote: Remote, file: Path, tmp_path: Path
) -> None:
    applied(remote, file, ORGANISATION + SETTINGS)
    there = exports(remote)

    other_url = f"sqlite:///{tmp_path / 'other.sqlite'}"
    with admin_server(other_url) as other, Remote(other.url, TOKEN) as elsewhere:
        applied(elsewhere, file, documents.write(there))
        assert actions(applied(elsewhere, file, documents.write(there))) == []
        assert exports(elsewhere) == there

    told = [each for each in there if each["kind"] in {"discount", "loop-breaker"}]
    begins = told[2].pop("effective_from")
    assert begins > "2026"
    assert told == [
        {"kind": "discount", "tenant": "acme", "percent": "12.5",
         "effective_from": "2026-01-01T00:00:00Z"},
        {"kind": "discount", "tenant": "acme", "percent": "5", "model": "chat", "meter": "output",
         "effective_from": "2999-01-01T00:00:00Z"},
        {"kind": "discount", "tenant": "acme", "percent": "90", "model": "chat", "state": "draft"},
        {"kind": "loop-breaker", "scope": {"tenant": "acme"}, "amount_per_minute": "5",
         "action": "block", "block_minutes": 30},
        {"kind": "loop-breaker", "scope": {"tenant": "acme", "team": "core"},
         "amount_per_minute": "2"},
    ]  # fmt: skip


def test_what_is_in_force_is_followed_and_what_is_to_come_is_changed(
    remote: Remote, file: Path
) -> None:
    applied(remote, file, ORGANISATION + SETTINGS)
    begun, to_come = "percent: 12.50,", "percent: 5\n"

    with pytest.raises(DocumentFault, match="in force since 2026-01-01T00:00:00Z and never chan"):
        applied(remote, file, ORGANISATION + SETTINGS.replace(begun, "percent: 13,"))
    (changed,) = (
        step
        for step in applied(
            remote,
            file,
            ORGANISATION
            + SETTINGS.replace(to_come, "percent: 6\n").replace("per_minute: 2", "per_minute: 3"),
        )
        if step.kind == "discount" and step.action != "unchanged"
    )
    later = "\n---\n{kind: discount, tenant: acme, percent: 15}"
    followed = applied(remote, file, ORGANISATION + later)

    assert changed.changes == (("percent", "5", "6"),)
    assert {each["amount_per_minute"] for each in remote.all("loop-breakers")} == {"5.00", "3"}
    assert actions(followed) == ["create discount"]
    assert actions(applied(remote, file, ORGANISATION + later)) == []


def test_a_rehearsal_sees_that_one_without_a_date_is_said_twice(remote: Remote, file: Path) -> None:
    twice = "\n---\n{kind: discount, tenant: acme, percent: 15}" * 2

    with pytest.raises(DocumentFault, match="the same object is described twice"):
        applied(remote, file, ORGANISATION + twice, dry_run=True)


def test_prune_takes_breakers_and_drafts_and_leaves_what_was_approved(
    remote: Remote, file: Path
) -> None:
    applied(remote, file, ORGANISATION + SETTINGS)
    file.write_text(ORGANISATION)
    reconciler = Reconciler(remote, dry_run=False)
    list(reconciler.apply(documents.read([file])))

    gone = list(reconciler.prune())

    assert sorted(actions(gone)) == ["delete discount", *["delete loop-breaker"] * 2]
    assert [each["percent"] for each in remote.all("discounts")] == ["12.50", "5"]
