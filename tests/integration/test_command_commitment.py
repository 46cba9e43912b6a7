"""The commitment command, as typed: agreed, shown, ended, withdrawn; what is odd by two."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main
from tests.admin_server import TOKEN, AdminServer, Made, admin_server

CREATE = ("commitment", "create", "--tenant", "acme", "--term", "quarter")


@pytest.fixture
def server(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[AdminServer]:
    """An admin server that the command finds by its environment, with a tenant."""
    with admin_server(sqlite_url) as server:
        monkeypatch.setenv("METERHOUSE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("METERHOUSE_ADMIN_URL", server.url)
        monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
        with server.client() as client:
            Made(client).make("tenants", name="acme", currency="EUR", timezone="Europe/Berlin")
        yield server


def made(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main([*words, "--json"]) == 0, capsys.readouterr().err
    return dict(json.loads(capsys.readouterr().out))


def test_one_is_agreed_shown_and_ended_with_a_term(
    server: AdminServer, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = made(capsys, *CREATE, "--amount", "300.00", "--first-day", "2026-07-16", "--prepaid")

    assert main(["commitment", "show", begun["id"]]) == 0
    head, first, *_ = capsys.readouterr().out.splitlines()
    ended = made(capsys, "commitment", "end", begun["id"])
    assert main(["commitment", "end", begun["id"]]) == 1
    again = capsys.readouterr().err
    assert main(["commitment", "list", "--tenant", "acme"]) == 0
    listed = capsys.readouterr().out.splitlines()

    assert head == f"{begun['id']}  acme  300 a quarter from 2026-07-16  prepaid  approved"
    assert first.split("  ")[1:3] == ["2026-07-16 to 2026-09-30", "committed 251.09"]
    assert (ended["amount"], ended["first_day"][4:]) in {
        ("0", day) for day in ("-01-01", "-04-01", "-07-01", "-10-01")
    }
    assert "begins on" in again
    assert [line.partition("  ")[0] for line in listed] == [begun["id"], ended["id"]]


def test_what_is_still_to_come_is_withdrawn(
    server: AdminServer, capsys: pytest.CaptureFixture[str]
) -> None:
    coming = made(
        capsys, *CREATE, "--amount", "9", "--first-day", "2999-01-01", "--last-day", "2999-06-30",
        "--rollover-percent", "12.50",
    )  # fmt: skip

    assert main(["commitment", "end", coming["id"]]) == 1
    assert "meterhouse commitment withdraw`" in capsys.readouterr().err
    assert main(["commitment", "list"]) == 0
    assert "9 a quarter from 2999-01-01 to 2999-06-30  12.5 % roll over" in capsys.readouterr().out
    assert main(["commitment", "withdraw", coming["id"]]) == 0
    assert main(["commitment", "show", coming["id"]]) == 1


def test_what_is_odd_is_put_in_force_by_a_colleague(
    server: AdminServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with server.client() as client:
        role: dict[str, Any] = {"role": "platform_admin"}
        ada, grace = (
            Made(client).make("admin-tokens", name=name, **role)["secret"] for name in ("a", "g")
        )
    odd = (*CREATE, "--amount", "9", "--first-day", "2999-01-01", "--overage-percent", "10")

    monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", ada)
    assert main([*odd]) == 1
    refused = capsys.readouterr().err
    draft = made(capsys, *odd, "--draft")
    assert main(["commitment", "approve", draft["id"]]) == 1
    own = capsys.readouterr().err
    monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", grace)
    assert main(["commitment", "list", "--drafts"]) == 0
    drafts = capsys.readouterr().out
    approved = made(capsys, "commitment", "approve", draft["id"])

    assert "meterhouse commitment create --draft`" in refused
    assert "meterhouse commitment approve ID`" in refused
    assert "who drafted it does not put it in force" in own
    assert drafts.endswith("overage at 10 %  draft\n")
    assert approved["state"] == "approved"
