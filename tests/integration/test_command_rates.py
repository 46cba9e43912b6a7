"""The rates command, as typed: one enters, another approves, against a real admin server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main
from tests.admin_server import TOKEN, AdminServer, Made, admin_server

CSV = """\
day,base,quote,rate,remark
2026-10-29,USD,EUR,0.9120,
2026-10-30,USD,EUR,0.9137,"as published, late"
2026-10-31,USD,EUR,9.139,
"""


@pytest.fixture
def server(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[AdminServer]:
    """An admin server that the command finds by its environment."""
    with admin_server(sqlite_url) as server:
        monkeypatch.setenv("METERHOUSE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("METERHOUSE_ADMIN_URL", server.url)
        monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
        yield server


def test_rates_are_imported_and_what_leaps_is_approved_by_a_colleague(
    server: AdminServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    with server.client() as client:
        role: dict[str, Any] = {"role": "platform_admin"}
        ada, grace = (
            Made(client).make("admin-tokens", name=name, **role)["secret"] for name in ("a", "g")
        )
    (tmp_path / "rates.csv").write_text(CSV)
    bring = ["rates", "import", str(tmp_path / "rates.csv"), "--source", "ECB"]

    monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", ada)
    assert main(bring) == 0
    told = capsys.readouterr()
    assert main([*bring, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert main(["rates", "list", "--drafts", "--json"]) == 0
    (draft,) = json.loads(capsys.readouterr().out)
    assert main(["rates", "approve", draft["id"]]) == 1
    own = capsys.readouterr().err
    monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", grace)
    assert main(["rates", "approve", draft["id"]]) == 0
    assert main(["rates", "list", "--base", "USD", "--day", "2026-10-31"]) == 0
    listed = capsys.readouterr().out

    assert told.out == "2 added, 0 known already, 1 drafted\n"
    assert "9.139 EUR for 1 USD on 2026-10-31 is more than 10 percent away" in told.err
    assert (again["added"], again["known"]) == (0, 3)
    assert "who drafted it does not put it in force" in own
    assert [line.rpartition("  ")[2] for line in listed.splitlines()] == [
        "counts",
        "draft",
        "counts",
    ]


def test_one_is_entered_and_one_that_leaps_says_how(
    server: AdminServer, capsys: pytest.CaptureFixture[str]
) -> None:
    day = ["--day", "2026-10-31", "--source", "ECB"]

    assert main(["rates", "set", "USD", "EUR", "0.9137", *day]) == 0
    assert main(["rates", "set", "USD", "EUR", "0.95", *day]) == 0
    assert main(["rates", "set", "EUR", "USD", "0.9137", *day]) == 1
    leaps = capsys.readouterr().err
    assert main(["rates", "set", "EUR", "USD", "0.9137", *day, "--draft"]) == 0
    drafted = capsys.readouterr()
    assert main(["rates", "list"]) == 0
    listed = capsys.readouterr().out.splitlines()

    assert "enter it with --draft; a colleague approves it with `" in leaps
    assert "meterhouse rates approve ID`" in leaps
    assert "meterhouse rates approve rate_" in drafted.err
    assert [line.partition("  ")[2] for line in listed] == [
        "2026-10-31  1 EUR = 0.9137 USD  ECB  draft",
        "2026-10-31  1 USD = 0.9137 EUR  ECB  replaced",
        "2026-10-31  1 USD = 0.95 EUR  ECB  counts",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("day,base,rate\n2026-10-31,USD,1\n", "has no column quote"),
        ("", "has no column day, base, quote, rate"),
        ("day,base,quote,rate\n2026-10-31,USD,EUR\n", "line 2: no rate"),
        ("day,base,quote,rate\n2026-10-31,USD,EUR,abc\n", "rates[0].rate"),
    ],
)
def test_a_file_that_is_no_table_of_rates_adds_none_and_says_where(
    server: AdminServer, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "rates.csv").write_text(text)

    assert main(["rates", "import", str(tmp_path / "rates.csv"), "--source", "ECB"]) == 1

    assert said in capsys.readouterr().err
    with server.client() as client:
        assert client.get("/exchange-rates").json()["items"] == []
