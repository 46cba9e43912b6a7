"""What a month will have cost: of every tenant, team or model, and no claim without a past."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from billing.meters import Meters
from gateway.__main__ import main
from gateway.stores.sql import teams, tenants
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.rows import Team, Tenant
from tests.admin_server import TOKEN, AdminServer, admin_server
from tests.invoicing import book, october

TENANT = f"tenant_{'a' * 26}"
OLD, NEW, TODAY = (f"team_{letter * 26}" for letter in "bcd")
NOON = "2026-10-21T10:00:00Z"  # in Berlin: half of the 21st and ten days are left


@pytest.fixture
def server(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[AdminServer]:
    """Three teams: 3.00 a day for 24 days, the same for six, and for none but today."""
    with admin_server(database_url) as server:
        monkeypatch.setenv("METERHOUSE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("METERHOUSE_ADMIN_URL", server.url)
        monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
        with transaction(server.engine) as connection:
            acme = Tenant(id=TENANT, name="acme", currency="USD", timezone="Europe/Berlin")
            tenants.RECORDS.add(connection, acme)
            for team_id, name in ((OLD, "=old"), (NEW, "new"), (TODAY, "today")):
                team = Team(id=team_id, tenant_id=TENANT, name=name, cost_center=name)
                teams.RECORDS.add(connection, team)
        of_old = [*(f"2026-09-{day}" for day in range(27, 31)), *days(1, 20)]
        used(server.engine, OLD, of_old)
        used(server.engine, NEW, days(15, 20))
        used(server.engine, TODAY, ["2026-10-21"])
        yield server


def days(first: int, last: int) -> list[str]:
    return [f"2026-10-{day:02d}" for day in range(first, last + 1)]


def used(engine: Engine, team: str, dates: list[str]) -> None:
    of = {"tenant_id": TENANT, "team_path": (team,), "usage": Meters(input=1_000_000)}
    book(engine, *(october(f"req_{team}_{day}", f"{day}T08:00:00Z", **of) for day in dates))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, str]]:
    assert main(["report", "forecast", "--at", NOON, *words]) == 0, capsys.readouterr().err
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


FIGURES = ("actual", "low", "forecast", "high", "interval_percent", "history_days")


def test_a_month_is_foreseen_by_team_and_claimed_after_a_week_of_spending_alone(
    server: AdminServer, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = said(capsys, "--by", "team", "--tenant", "acme")

    assert {row["team"]: tuple(row[name] for name in FIGURES) for row in rows} == {
        "'=old": ("60", "91.50", "91.50", "91.50", "80", "24"),
        "new": ("18", "49.50", "49.50", "49.50", "", "6"),
        "today": ("3", "", "", "", "", "0"),
    }
    assert {(row["tenant"], row["period"], row["currency"]) for row in rows} == {
        ("acme", "2026-10", "USD")
    }


def test_without_a_word_it_is_of_every_tenant_as_a_whole(
    server: AdminServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = said(capsys)

    assert (row["tenant"], row["actual"], row["history_days"]) == ("acme", "81", "24")
    low, middle, high = (float(row[name]) for name in ("low", "forecast", "high"))
    assert 81 < low < middle < high, "six days that cost more leave something to be unsure of"


def test_what_was_known_later_says_nothing_of_what_was_foreseen(
    server: AdminServer, capsys: pytest.CaptureFixture[str]
) -> None:
    before = said(capsys, "--by", "team")
    used(server.engine, OLD, ["2026-10-22"])

    assert said(capsys, "--by", "team") == before


def test_at_a_months_end_nothing_is_foreseen_below_what_is_spent(
    server: AdminServer, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = {"tenant_id": TENANT, "team_path": (OLD,), "usage": Meters(input=1)}
    book(server.engine, october("req_odd", "2026-10-30T08:00:00Z", **odd))

    assert main(["report", "forecast", "--at", "2026-10-31T22:59:59Z"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))

    assert row["actual"] == "81.000003"
    assert row["low"] == "81.01"


@pytest.mark.parametrize(
    ("asked", "field"),
    [({"group_by": "day"}, "group_by"), ({"at": "9998-01-01T00:00:00Z"}, "at")],
)
def test_what_cannot_be_foreseen_is_refused_by_name(
    server: AdminServer, asked: dict[str, Any], field: str
) -> None:
    with server.client() as client:
        answer = client.get("/reports/forecast", params=asked)

    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == [field]
