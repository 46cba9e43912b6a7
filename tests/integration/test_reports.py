"""Reports for whoever closes a month, as typed: exact, balanced, and of what one may see."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from billing.meters import Meters
from billing.money import parse_picos
from gateway.__main__ import main
from gateway.clock import parse_rfc3339
from gateway.stores.sql import budgets, grants, teams, tenants
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.rows import Budget, Grant, Team, Tenant
from tests.admin_server import TOKEN, Made, admin_server
from tests.invoicing import agree, book, credited, drafted, issued, october, total
from tests.ledger_events import COST

TENANT, TEAM = f"tenant_{'a' * 26}", f"team_{'b' * 26}"
MILLION = Meters(input=1_000_000)


@pytest.fixture
def engine(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Engine]:
    """October: 3.00 charged on the 14th and 15th each, at a cost of 2.50 and of an attempt that
    lost; the first of November another 3.00.
    """
    with admin_server(database_url) as server:
        monkeypatch.setenv("METERHOUSE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("METERHOUSE_ADMIN_URL", server.url)
        monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
        with transaction(server.engine) as connection:
            acme = Tenant(id=TENANT, name="acme", currency="USD", timezone="Europe/Berlin")
            tenants.RECORDS.add(connection, acme)
            core = Team(id=TEAM, tenant_id=TENANT, name="=core", cost_center="+core")
            teams.RECORDS.add(connection, core)
            cap = {"scope_kind": "tenant", "scope_id": TENANT, "amount": "8", "period": "month"}
            budget = Budget(id=f"bud_{'c' * 26}", tenant_id=TENANT, **cap)
            budgets.RECORDS.add(connection, budget)
        book(
            server.engine,
            used("req_1", "2026-10-14T12:00:00Z"),
            used("req_2", "2026-10-15T12:00:00Z"),
            used("req_2", "2026-10-15T12:00:00Z", attempt=2, winner=False),
            used("req_3", "2026-11-01T00:00:00Z"),
        )
        yield server.engine


def used(request: str, at: str, **given: Any) -> Any:
    fields = {"tenant_id": TENANT, "team_path": (TEAM,), "usage": MILLION, "cost_card": COST}
    return october(request, at, **(fields | given))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, str]]:
    assert main(["report", *words]) == 0, capsys.readouterr().err
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_the_journal_balances_by_reference_and_ties_to_what_was_charged(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    invoice = issued(engine, drafted(engine, "2026-10", TENANT))
    credited(engine, invoice, 1_00)

    lines = said(capsys, "journal", "--period", "2026-10", "--tenant", "acme")
    november = said(capsys, "journal", "--period", "2026-11", "--tenant", "acme")

    for table in (lines, november):
        sums = Counter[tuple[str, ...]]()
        for each in table:
            key = (each["date"], each["reference"], each["currency"])
            sums[key] += parse_picos(each["debit"]) - parse_picos(each["credit"])
        assert not any(sums.values())
    assert [
        (each["date"], each["kind"], each["account"].partition("/")[0], each["part"], each["debit"])
        for each in lines
        if each["debit"] != "0"
    ] == [
        ("2026-10-14", "charge", "receivable", "'=core", "3"),
        ("2026-10-14", "cost", "cost_of_service", "'=core", "2.5"),
        ("2026-10-15", "charge", "receivable", "'=core", "3"),
        ("2026-10-15", "cost", "cost_of_service", "'=core", "5"),
    ]
    billed = {
        (each["reference"], each["account"].partition("/")[0]): each["debit"] for each in november
    }
    assert billed["INV-000001", "due"] == "6"
    assert billed["INV-CN-000001", "credits"] == "1"


def test_what_is_accrued_is_what_is_on_no_invoice_at_the_month_s_end(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the minimum of 10, what October's usage leaves of it."""
    agree(engine, TENANT, minimum="10")
    invoice = issued(engine, drafted(engine, "2026-10", TENANT))
    book(engine, used("req_4", "2026-10-20T12:00:00Z"))

    october_ = said(capsys, "accrual", "--period", "2026-10", "--tenant", "acme")
    november = said(capsys, "accrual", "--period", "2026-11")
    assert main(["report", "accrual", "--period", "2999-01", "--tenant", "acme"]) == 1
    unbegun = capsys.readouterr().err

    assert total(invoice) == "10.00"
    assert [tuple(each.values())[2:] for each in october_] == [
        ("'=core", "usage", "9", "9", "0", "9", "USD"),
        ("", "minimum", "0", "0", "0", "1", "USD"),
    ]
    assert [(each["team"], each["kind"], each["accrued"]) for each in november] == [
        # what came late of October, of which the minimum was charged already
        ("'=core", "usage", "6"), ("", "minimum", "4"),
    ]  # fmt: skip
    assert {each["period"] for each in november} == {"2026-11"}
    assert "2999-01 has not begun in Europe/Berlin" in unbegun


def test_margin_has_both_views_and_the_cost_of_a_million_tokens_over_time(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    span = ("--from", "2026-10-01T00:00:00Z", "--to", "2026-11-01T00:00:00Z")

    days = said(capsys, "margin", "--by", "day,model", *span)
    (whole,) = said(capsys, "margin", "--by", "team", *span)

    assert [
        (each["day"], each["charge"], each["cost"], each["lost_cost"], each["margin"])
        for each in days
    ] == [("2026-10-14", "3", "2.5", "0", "0.5"), ("2026-10-15", "3", "5", "2.5", "-2")]
    assert [each["cost_per_million"] for each in days] == ["2.5", "5"]
    assert (whole["team"], whole["margin"], whole["margin_percent"]) == ("'=core", "-1.5", "-25")
    period = ("--period", "2026-10")
    assert said(capsys, "margin", "--by", "team", *period, "--tenant", "acme") == [whole]
    assert main(["report", "margin", *period, *span]) == 1
    assert "in place of `from` and `to`" in capsys.readouterr().err


def test_no_cell_that_somebody_named_is_run_by_a_spreadsheet(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"backend_id": "=backend", "region": "@region", "tags": {"job": "-1+1"}}
    book(engine, used("req_4", "2026-10-20T12:00:00Z", **named))
    span = ("--from", "2026-10-20T00:00:00Z", "--to", "2026-11-01T00:00:00Z")
    by = ("team", "cost_center", "cost_center_now", "backend", "region", "tag:job")

    (line,) = said(capsys, "margin", "--by", ",".join(by), *span)

    told = [line[name] for name in by]
    assert told == ["'=core", "'+core", "'+core", "'=backend", "'@region", "'-1+1"]
    (days,) = said(capsys, "margin", "--by", "provenance", "--to", "2026-10-16T00:00:00Z",
                   "--from", "2026-10-15T00:00:00Z")  # fmt: skip
    assert days["margin"] == "-2", "a figure stays one"


def test_the_last_year_has_no_windows(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "budgets", "--at", "9999-12-31T23:59:59Z"]) == 1
    assert "before the year 9999" in capsys.readouterr().err


def test_budgets_stand_against_what_was_spent_in_the_window_of_an_instant(
    engine: Engine, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "budgets.csv"

    assert main(["report", "budgets", "--at", "2026-10-17T00:00:00Z", "-o", str(file)]) == 0

    (row,) = csv.DictReader(io.StringIO(file.read_text()))
    assert (row["scope"], row["budget"], row["actual"], row["left"]) == (
        "tenant acme",
        "8",
        "6",
        "2",
    )
    assert row["tenant"] == "acme"
    assert (row["used_percent"], row["window_start"]) == ("75", "2026-09-30T22:00:00Z")
    assert main(["report", "journal", "--period", "2026-13"]) == 1
    assert "a month such as" in capsys.readouterr().err


def grant(letter: str, amount: str, made: str, until: str, taken_back: str | None = None) -> Grant:
    return Grant(
        id=f"grant_{letter * 26}",
        tenant_id=TENANT,
        budget_id=f"bud_{'c' * 26}",
        amount=amount,
        until_us=parse_rfc3339(until),
        approver="Ada",
        reason="the launch",
        revoked_at_us=None if taken_back is None else parse_rfc3339(taken_back),
        created_at_us=parse_rfc3339(made),
    )


@pytest.mark.parametrize(
    ("at", "granted", "left", "used_percent"),
    [
        ("2026-10-09T23:59:59Z", "0", "2", "75"),  # before any was made
        ("2026-10-10T00:00:00Z", "4", "6", "50"),
        ("2026-10-17T00:00:00Z", "16", "18", "25"),  # with one that was taken back later
        ("2026-10-18T00:00:00Z", "4", "6", "50"),
        ("2026-10-20T00:00:00Z", "0", "2", "75"),  # all are over
        ("2026-11-15T00:00:00Z", "0", "5", "37.5"),
    ],
)
def test_a_budget_may_spend_what_was_granted_beyond_it_at_that_instant(
    engine: Engine,
    capsys: pytest.CaptureFixture[str],
    at: str,
    granted: str,
    left: str,
    used_percent: str,
) -> None:
    until = "2026-10-20T00:00:00Z"
    with transaction(engine) as connection:
        for each in (
            grant("d", "4", "2026-10-10T00:00:00Z", until),
            grant("e", "12", "2026-10-12T00:00:00Z", until, taken_back="2026-10-18T00:00:00Z"),
        ):
            grants.RECORDS.add(connection, each)

    (row,) = said(capsys, "budgets", "--at", at)

    assert (row["budget"], row["granted"], row["left"]) == ("8", granted, left)
    assert row["used_percent"] == used_percent
    assert list(row).index("granted") == list(row).index("budget") + 1
    assert main(["report", "budgets", "--at", at, "--json"]) == 0
    (item,) = json.loads(capsys.readouterr().out)["items"]
    assert (item["granted"], item["left"]) == (granted, left)


def test_the_report_and_the_budget_itself_say_the_same_of_a_grant(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with admin_server(sqlite_url) as server, server.client() as client:
        monkeypatch.setenv("METERHOUSE_ADMIN_URL", server.url)
        monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
        made = Made(client)
        scope = {"tenant": made.tenant()["id"]}
        small = made.make("budgets", scope=scope, amount="0.0001", period="month")
        more = {"amount": "100.00", "until": "2098-12-31T00:00:00Z", "reason": "the launch"}
        assert client.post(f"/budgets/{small['id']}/grants", json=more).status_code == 201
        shown = client.get(f"/budgets/{small['id']}").json()

        (row,) = said(capsys, "budgets")

    assert (row["budget"], row["granted"]) == (shown["amount"], shown["granted"])
    assert row["left"] == shown["remaining"] == "100.0001"
