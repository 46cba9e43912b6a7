"""What a box cost beyond its tokens, looked at and booked by the admin API and `meterhouse tco`."""

import argparse
import csv
import io
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest

from billing.meters import Meters
from gateway import clock
from gateway.commands import tco
from gateway.stores.sql import books, usage
from gateway.stores.sql.engine import reading
from tests.admin_server import TOKEN, AdminServer, Made, refused
from tests.ledger_events import a_card, an_event

OCTOBER = {"period": "2026-10"}
# Nothing but rent: an hour costs 12.52, and the month of October 744 of them.
RENTED = {
    "profile": "h100", "currency": "EUR", "capex": "0", "salvage": "0", "operations_per_year": "0",
    "electricity_per_kwh": "0", "rent_per_hour": "12.52", "prefill_tokens_per_second": "6000",
}  # fmt: skip
MONTH = Decimal("12.52") * 744


@pytest.fixture
def rack(admin_house: AdminServer, made: Made) -> dict[str, Any]:
    return a_rack(admin_house, made, "2026-10-01T00:00:00Z")


def a_rack(admin_house: AdminServer, made: Made, since: str) -> dict[str, Any]:
    """Its tokens bore 100.00 in October, by one team. It has its profile since then."""
    team = made.team(made.tenant()["id"], name="Research")
    key = made.key(team["id"])
    backend = made.backend(tco=RENTED, tco_effective_from=since)
    at_us = clock.parse_rfc3339("2026-10-14T12:00:00Z")
    event = an_event(
        f"req_{backend['id']}",
        tenant_id=key["tenant_id"],
        team_path=(team["id"],),
        key_id=key["id"],
        backend_id=backend["id"],
        currency="EUR",
        admitted_at_us=at_us,
        finished_at_us=at_us + 90_000_000,
        duration_us=90_000_000,
        usage=Meters(input=10_000_000),
        charge_card=a_card(2 * 10**7, 1, "list", "EUR"),
        cost_card=a_card(10**7, 1, "tco", "EUR"),
    )
    assert usage.record(admin_house.engine, [(event, True)]) == 1
    return backend | {"team": team}


@pytest.fixture
def typed(
    admin_house: AdminServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    monkeypatch.setenv("METERHOUSE_ADMIN_URL", admin_house.url)
    monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
    parser = argparse.ArgumentParser()
    tco.add(parser.add_subparsers())

    def run(*words: str) -> tuple[int, str]:
        done = tco.run(parser.parse_args(["tco", *words]))
        said = capsys.readouterr()
        return done, said.out + said.err

    return run


def test_a_month_of_a_box_is_looked_at_booked_and_found_in_the_journal(
    admin_house: AdminServer, admin_client: httpx.Client, rack: dict[str, Any]
) -> None:
    path = f"/backends/{rack['id']}/idle"

    look = admin_client.get(path, params=OCTOBER).json()
    booked = admin_client.post(path, json=OCTOBER).json()
    again = admin_client.post(path, json=OCTOBER).json()
    spread = admin_client.post(path, json=OCTOBER | {"spread": "busy"}).json()

    before, left = look["left"], str(MONTH - 100)
    assert (before["actual"], before["absorbed"], before["variance"]) == (
        str(MONTH), "100", left,
    )  # fmt: skip
    assert (before["from"], before["to"], before["busy_seconds"]) == (
        "2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z", 90,
    )  # fmt: skip
    assert before["parts"] == [{"account": "idle", "amount": left, "due": left}]
    assert look["booked"] == []
    assert booked["left"]["parts"] == [{"account": "idle", "amount": left, "due": "0"}]
    assert again == booked
    assert [each["amount"] for each in spread["booked"]] == [left, "0"]
    assert spread["left"]["parts"] == [{"account": rack["team"]["id"], "amount": left, "due": "0"}]
    asked = {"params": OCTOBER, "headers": {"accept": "text/csv"}}
    table = list(csv.DictReader(io.StringIO(admin_client.get("/reports/journal", **asked).text)))
    mine = [row for row in table if row["kind"] == "idle" and rack["id"] in row["account"]]
    assert {(row["date"], row["account"].split("/")[0]) for row in mine} == {
        ("2026-10-31", "idle"), ("2026-10-31", "provider"),
    }  # fmt: skip
    assert {row["reference"] for row in mine} == {"idle 2026-10-31"}
    with reading(admin_house.engine) as connection:
        assert books.check(connection).faults == ()


def test_the_command_shows_a_month_and_books_it(
    typed: Callable[..., tuple[int, str]], rack: dict[str, Any]
) -> None:
    name, left = rack["name"], str(MONTH - 100)

    looked = typed("--backend", name, "--look", "2026-10", "--spread", "even")
    booked = typed("--backend", name, "--book", "2026-10", "--json")
    shown = typed("--backend", name, "--look", "2026-10")

    assert looked[0] == 0
    assert f"cost         {MONTH} EUR: 100 borne by tokens, {left} beyond them" in looked[1]
    assert f"Research     {left} EUR, of which {left} is not booked" in looked[1]
    assert json.loads(booked[1])["left"]["parts"][0]["due"] == "0"
    assert f"idle         {left} EUR\n" in shown[1]
    assert f"booked       {left} on " in shown[1]


def test_a_profile_that_begins_within_the_month_says_what_is_not_booked(
    admin_house: AdminServer,
    admin_client: httpx.Client,
    made: Made,
    typed: Callable[..., tuple[int, str]],
) -> None:
    rack = a_rack(admin_house, made, "2026-10-20T00:00:00Z")

    left = admin_client.get(f"/backends/{rack['id']}/idle", params=OCTOBER).json()["left"]
    said = typed("--backend", rack["name"], "--look", "2026-10")[1]

    assert (left["from"], left["absorbed"], left["absorbed_before"]) == (
        "2026-10-20T00:00:00Z", "0", "100",
    )  # fmt: skip
    assert "not booked   what it cost before 2026-10-20T00:00:00Z" in said
    assert "tokens of then bore 100 EUR" in said


def test_what_cannot_be_booked_says_why(
    admin_client: httpx.Client, made: Made, typed: Callable[..., tuple[int, str]]
) -> None:
    hosted, rack = made.backend(), made.backend(tco=RENTED)

    def asked(backend: dict[str, Any], period: str) -> httpx.Response:
        return admin_client.post(f"/backends/{backend['id']}/idle", json={"period": period})

    for backend, period, told in (
        (hosted, "2026-10", "has no tco"),
        (rack, "2999-01", "is not over"),
        (rack, "2026-10", "give it another tco_effective_from"),
    ):
        answer = asked(backend, period)
        refused(answer, 409)
        assert told in answer.json()["detail"]
        seen = admin_client.get(f"/backends/{backend['id']}/idle", params={"period": period}).json()
        assert (seen["left"], told in seen["because"]) == (None, True)
    refused(asked(rack, "9999-12"), 422, "period")
    assert typed("--book", "2026-10")[0] == 1
    assert "name it with --backend" in typed("--look", "2026-10")[1]
    assert typed("--backend", rack["name"], "--book", "2999-01")[0] == 1
    assert typed("--backend", rack["name"], "--look", "2999-01") == (
        0, "2999-01 is not over: book it when it is\n",
    )  # fmt: skip


def test_a_tenant_is_not_told_what_boxes_cost(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made, rack: dict[str, Any]
) -> None:
    tenant = {"tenant": rack["team"]["tenant_id"]}
    admin_client.post(f"/backends/{rack['id']}/idle", json=OCTOBER | {"spread": "busy"})
    secret = made.make("admin-tokens", name=made.name(), role="finance", scope=tenant)["secret"]

    with admin_house.client(secret) as client:
        look = client.get(f"/backends/{rack['id']}/idle", params=OCTOBER)
        book = client.post(f"/backends/{rack['id']}/idle", json=OCTOBER)
        journal = client.get("/reports/journal", params=OCTOBER).json()

    assert {look.status_code, book.status_code} <= {403, 404}
    assert {each["kind"] for each in journal["items"]} == {"charge"}
