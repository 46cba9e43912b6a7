"""What an auditor takes home: a folder that says what it holds, and in which a change is found."""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.commands import evidence
from tests.admin_server import TOKEN, AdminServer, Made

SPAN = ["--from", "2026-01-01T00:00:00Z", "--to", "2099-01-01T00:00:00Z"]


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    evidence.add(parser.add_subparsers())
    return evidence.run(parser.parse_args(["evidence", *words]))


def manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / evidence.MANIFEST).read_text()))


@pytest.fixture
def asking(admin_house: AdminServer, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("METERHOUSE_ADMIN_URL", admin_house.url)
    monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
    return monkeypatch


def test_the_folder_holds_what_its_manifest_says_until_somebody_changes_it(
    asking: pytest.MonkeyPatch,
    made: Made,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tenant = made.tenant()
    key = made.key(made.team(tenant["id"])["id"])
    folder = tmp_path / "2026"

    assert command("export", *SPAN, "-o", str(folder)) == 0

    told = capsys.readouterr().out
    text = (folder / evidence.MANIFEST).read_bytes()
    assert hashlib.sha256(text).hexdigest() in told
    found = manifest(folder)
    assert found["left_out"] == []
    assert found["by"]["role"] == "platform_admin"
    assert key["id"] in (folder / "keys.jsonl").read_text()
    assert key["secret"] not in "".join(p.read_text() for p in folder.iterdir())
    assert json.loads((folder / "audit-verify.json").read_text())["valid"] is True
    assert tenant["id"] in (folder / "audit.jsonl").read_text()
    assert command("check", str(folder)) == 0
    assert (folder / "discounts.jsonl").exists()
    for each in found["files"]:
        content = (folder / each["name"]).read_bytes()
        assert (each["lines"], each["bytes"]) == (len(content.splitlines()), len(content)), each
    (terms,) = (folder / "billing-terms.jsonl").read_text().splitlines()
    assert json.loads(terms)["tenant_id"] == tenant["id"]

    (folder / "keys.jsonl").write_text("{}\n")
    (folder / "teams.jsonl").unlink()
    (folder / "more.txt").write_text("x")
    capsys.readouterr()
    assert command("check", str(folder)) == 1
    assert capsys.readouterr().out.splitlines() == [
        "more.txt is in no manifest",
        "teams.jsonl is missing",
        "keys.jsonl is not what was written",
    ]


@pytest.mark.parametrize(
    ("since", "until"),
    [("2026-11-01T00:00:00Z", "2026-10-01T00:00:00Z"),
     ("20260101T000000Z", "2026-11-01T00:00:00Z")],
)  # fmt: skip
@pytest.mark.usefixtures("asking")
def test_what_fails_leaves_a_folder_that_the_next_try_can_fill(
    since: str, until: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "2026"
    assert command("export", "--from", since, "--to", until, "-o", str(folder)) == 1
    assert since in capsys.readouterr().err
    assert command("export", *SPAN, "-o", str(folder)) == 0


def test_a_token_takes_no_more_home_than_it_may_read(
    asking: pytest.MonkeyPatch, admin_client: httpx.Client, made: Made, tmp_path: Path
) -> None:
    mine, other = made.tenant(), made.tenant()
    token = made.make(
        "admin-tokens", name="books", role="auditor", scope={"tenant": mine["id"]}
    )  # fmt: skip
    asking.setenv("METERHOUSE_ADMIN_TOKEN", token["secret"])
    folder = tmp_path / "mine"

    assert command("export", *SPAN, "-o", str(folder)) == 0

    everything = "".join(path.read_text() for path in folder.iterdir())
    assert mine["id"] in everything
    assert other["id"] not in everything
    assert command("check", str(folder)) == 0


def test_what_a_role_may_not_read_is_named(
    asking: pytest.MonkeyPatch, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scope = {"tenant": made.tenant()["id"]}
    token = made.make("admin-tokens", name="money", role="finance", scope=scope)
    asking.setenv("METERHOUSE_ADMIN_TOKEN", token["secret"])

    assert command("export", *SPAN, "-o", str(tmp_path / "books")) == 0

    left_out = {each["name"] for each in manifest(tmp_path / "books")["left_out"]}
    assert "audit.jsonl" in left_out
    assert "usage.csv" not in left_out
    assert "audit.jsonl is left out: " in capsys.readouterr().err
    assert not (tmp_path / "books" / "audit.jsonl").exists()


def test_evidence_is_not_mixed_and_a_folder_without_a_manifest_is_none(
    asking: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.txt").write_text("x")

    assert command("export", *SPAN, "-o", str(tmp_path)) == 1
    assert "is not empty" in capsys.readouterr().err
    assert command("check", str(tmp_path)) == 1
    assert "has no manifest" in capsys.readouterr().err


@pytest.mark.usefixtures("asking")
def test_a_time_that_is_none_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command("export", "--from", "yesterday", "--to", "2026-11", "-o", str(tmp_path / "2026"))

    assert ended.value.code == 2
    assert "'yesterday' is no time such as 2026-10" in capsys.readouterr().err
