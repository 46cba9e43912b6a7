"""The invoice command, as typed: against a real admin server."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from billing.meters import Meters
from gateway import clock
from gateway.__main__ import main
from gateway.clock import parse_rfc3339
from gateway.stores.sql import tenants, usage
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.rows import Tenant
from tests.admin_server import TOKEN, admin_server
from tests.ledger_events import an_event

_DETAIL = "focus-1.4-detail-experimental"
TENANT = f"tenant_{'a' * 26}"


@pytest.fixture
def engine(sqlite_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Engine]:
    """The database behind an admin server that the command finds by its environment."""
    with admin_server(sqlite_url) as server:
        monkeypatch.setenv("METERHOUSE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("METERHOUSE_ADMIN_URL", server.url)
        monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
        with transaction(server.engine) as connection:
            acme = Tenant(id=TENANT, name="acme", currency="USD", timezone="Europe/Berlin")
            tenants.RECORDS.add(connection, acme)
        yield server.engine


def test_a_draft_is_made_listed_and_exported(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usage.record(engine, [(an_event(f"req_{n}", tenant_id=TENANT), True) for n in range(9)])

    assert main(["invoice", "draft", "--tenant", "acme", "--period", "2026-11", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert main(["invoice", "list", "--tenant", "acme"]) == 0
    listed = capsys.readouterr().out
    assert main(["invoice", "export", made["id"]]) == 0
    exported = capsys.readouterr().out
    assert main(["invoice", "export", made["id"], "-o", str(tmp_path / "lines.csv")]) == 0

    assert made["total"] == "0.04"
    assert listed.split() == [made["id"], "acme", "2026-11", "draft", "-", "0.04", "USD"]
    assert len(list(csv.DictReader(io.StringIO(exported)))) == 4
    assert (tmp_path / "lines.csv").read_bytes().decode() == exported


def test_a_draft_is_issued_checked_credited_and_voided(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    october = parse_rfc3339("2026-10-14T12:00:00Z")
    usage.record(engine, [(an_event(tenant_id=TENANT, admitted_at_us=october), True)])
    million = Meters(input=1_000_000)
    more = an_event("req_2", tenant_id=TENANT, admitted_at_us=october, usage=million)
    usage.record(engine, [(more, True)])

    def said(*words: str) -> list[str]:
        assert main(["invoice", *words]) == 0
        return capsys.readouterr().out.split()

    thrown, *_ = said("draft", "--tenant", TENANT, "--period", "2026-10")
    assert said("discard", thrown) == []
    assert said("list") == []
    draft, *_ = said("draft", "--tenant", TENANT, "--period", "2026-10")
    issued = said("issue", draft)
    assert issued[1:] == ["acme", "2026-10", "issued", "INV-000001", "3.00", "USD"]
    assert said("check", "INV-000001")[:2] == ["INV-000001", "intact"]
    assert "USD" in said("rating", "req_2")
    explained = said("explain", "INV-000001")
    assert [word for word in explained if word.startswith("req_")] == ["req_1", "req_2"]
    assert explained[-7:] == [
        "3.00438", "USD", "rounding:", "-0.00438", "billed:", "3", "USD",
    ]  # fmt: skip
    assert explained.count("chat-default") == 2, "and whose, of which model"
    note = said("credit", "INV-000001", "--amount", "1", "--reason", "slow")
    assert note[1:7] == ["acme", "2026-10", "issued", "INV-CN-000001", "-1.00", "USD"]
    assert " ".join(said("list")).endswith("-1.00 USD credit note on INV-000001")
    assert main(["invoice", "void", "INV-000001", "--reason", "typo"]) == 1
    assert "void its credit notes first" in capsys.readouterr().err
    assert "voided" in said("void", "INV-CN-000001", "--reason", "typo")
    assert "voided" in said("void", "INV-000001", "--reason", "typo")
    for form in ("lines", "focus-1.2", "focus-1.4-experimental"):
        assert main(["invoice", "export", "INV-000001", "--format", form]) == 1
        told = capsys.readouterr()
        assert "INV-000001 is voided" in told.err
        assert "--voided" in told.err
        assert told.out == ""
        assert said("export", "INV-000001", "--voided", "--format", form)
    assert "Voided" in "".join(said("export", "INV-000001", "--format", _DETAIL))


def test_a_file_that_cannot_be_read_or_written_is_named_in_a_sentence(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usage.record(engine, [(an_event(tenant_id=TENANT), True)])
    assert main(["invoice", "draft", "--tenant", "acme", "--period", "2026-11", "--json"]) == 0
    draft = json.loads(capsys.readouterr().out)["id"]
    nowhere, broken = str(tmp_path / "none" / "x"), tmp_path / "terms.json"
    broken.write_text('{\n  "series": INV\n}')

    def refused(*words: str) -> str:
        assert main([*words]) == 1
        return capsys.readouterr().err

    why = "No such file or directory"
    unwritten = f"meterhouse: cannot write {nowhere}: {why}\n"
    assert refused("report", "margin", "-o", nowhere) == unwritten
    assert refused("invoice", "export", draft, "-o", nowhere) == unwritten
    replacing = ("invoice", "terms", "--tenant", "acme", "--replace")
    assert refused(*replacing, nowhere) == f"meterhouse: cannot read {nowhere}: {why}\n"
    assert f"{broken} is no JSON: line 2: " in refused(*replacing, str(broken))


def test_who_bills_whom_is_printed_replaced_and_asked_for_where_it_is_missing(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str, ends: int = 0) -> tuple[str, str]:
        assert main(["invoice", *words]) == ends
        return tuple(capsys.readouterr())

    _, hint = said("draft", "--tenant", "acme", "--period", "2026-10")
    assert "lacks the legal name or address of a side" in hint
    given = json.loads(said("terms", "--tenant", "acme")[0])
    given["issuer"] = {"name": "Gateway plc", "address": ["2 Side St", "Cork"]}
    given["recipient"] = {"name": "Acme Corporation", "address": ["1 Main St"]}
    given["purchase_order"] = "PO-7"
    file = tmp_path / "terms.json"
    file.write_text(json.dumps(given))
    assert json.loads(said("terms", "--tenant", "acme", "--replace", str(file))[0])["issuer"] == {
        "name": "Gateway plc", "address": ["2 Side St", "Cork"], "tax_id": "",
    }  # fmt: skip
    made, hint = said("draft", "--tenant", "acme", "--period", "2026-10")
    assert hint == ""
    page, _ = said("export", made.split()[0], "--format", "page")
    for name in ("Gateway plc", "Acme Corporation", "2 Side St", "PO-7"):
        assert name in page
    assert "tenant_" not in page
    file.write_text("no JSON")
    assert said("terms", "--tenant", "acme", "--replace", str(file), ends=1)[1].startswith("meterh")


@pytest.mark.parametrize(
    "words",
    [
        ["draft", "--tenant", "nobody", "--period", "2026-11"],
        ["draft", "--tenant", "acme", "--period", "November"],
        ["export", f"inv_{'0' * 26}"],
        ["export", "2026-0007"],
        ["rating", "req_none"],
    ],
)
def test_what_is_refused_says_why_and_ends_with_1(
    engine: Engine, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["invoice", *words]) == 1
    assert capsys.readouterr().err.startswith("meterhouse: ")


@pytest.mark.parametrize(
    ("period", "words"),
    [
        ("2026-13", 'period: must be a month such as 2026-11, not "2026-13"'),
        ("2999-01", "period: 2999-01 has not begun in Europe/Berlin"),
    ],
)
def test_a_period_that_cannot_be_drafted_is_refused_in_words(
    engine: Engine, period: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["invoice", "draft", "--tenant", "acme", "--period", period]) == 1
    assert words in capsys.readouterr().err


def test_a_month_that_still_runs_is_refused_in_the_words_of_the_command(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    now_us = clock.now_us()
    usage.record(engine, [(an_event(tenant_id=TENANT, admitted_at_us=now_us), True)])
    period = clock.rfc3339(now_us)[:7]
    assert main(["invoice", "draft", "--tenant", "acme", "--period", period, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)

    assert main(["invoice", "issue", made["id"]]) == 1

    refused = capsys.readouterr().err
    assert "--early" in refused
    assert "{" not in refused
