"""From the number on an invoice's page to the requests behind it, and from a request to its rating:
as pages, as typed.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from billing.meters import Meter, Meters
from billing.prices import Rate, sealed_card
from billing.quantity import Schedule, Step
from gateway.__main__ import main
from gateway.stores.sql import teams, tenants
from gateway.stores.sql.engine import transaction
from gateway.stores.sql.rows import Team, Tenant
from tests.admin_server import TOKEN, AdminServer, admin_server
from tests.invoicing import book, drafted, issued, october
from tests.unit.billing.test_invoice_page import Cells

TENANT, TEAM = f"tenant_{'a' * 26}", f"team_{'b' * 26}"
ONE, OTHER = "req_01m7yzmhg0znyyn9bw3sz6th1p", "req_01m7yzmhg0znyyn9bw3sz6th1q"


@pytest.fixture
def server(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[AdminServer]:
    """October, issued: two requests of a team whose name is markup; 3.00 and 6.00 of input."""
    with admin_server(database_url) as server:
        monkeypatch.setenv("METERHOUSE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("METERHOUSE_ADMIN_URL", server.url)
        monkeypatch.setenv("METERHOUSE_ADMIN_TOKEN", TOKEN)
        with transaction(server.engine) as connection:
            acme = Tenant(id=TENANT, name="acme", currency="USD", timezone="Europe/Berlin")
            tenants.RECORDS.add(connection, acme)
            team = Team(id=TEAM, tenant_id=TENANT, name="<b>core", cost_center="CC-1")
            teams.RECORDS.add(connection, team)
        for request, millions in ((ONE, 1), (OTHER, 2)):
            usage = Meters(input=millions * 1_000_000, output=1)
            of = {"tenant_id": TENANT, "team_path": (TEAM,), "usage": usage}
            book(server.engine, october(request, **of))
        issued(server.engine, drafted(server.engine, "2026-10", TENANT))
        yield server


def page(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["invoice", *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_the_number_of_a_printed_line_leads_to_its_requests(
    server: AdminServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    printed = Cells(page(capsys, "export", "INV-000001", "--format", "page"))
    (number,) = (row[0] for row in printed.rows if row[7:8] == ["3,000,000"])

    text = page(capsys, "explain", "INV-000001", "--line", number, "--page")
    file = tmp_path / "why.html"
    assert page(capsys, "explain", "INV-000001", "--line", number, "--page", "-o", str(file)) == ""

    assert file.read_text() == text
    rows = Cells(text).rows
    assert ["2 bookings at 3 USD a million", "3,000,000", "9"] in rows
    assert ["The line: 3,000,000 tokens at 3 USD a million", "9 USD", ""] in rows
    assert [(row[1], row[2], *row[5:]) for row in rows if row[1:2] in ([ONE], [OTHER])] == [
        (ONE, "<b>core", "1,000,000", "3"),
        (OTHER, "<b>core", "2,000,000", "6"),
    ]
    assert f"Line {number} of Invoice INV-000001" in text
    whole = Cells(page(capsys, "explain", "INV-000001", "--page")).rows
    assert ["Billed", "9 USD", ""] in whole


def test_a_request_leads_to_its_rating_and_to_the_invoice(
    server: AdminServer, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page(capsys, "rating", OTHER, "--page")

    rows = Cells(text).rows
    assert ["Input", "p_in", "2,000,000", "3 a million", "6"] in rows
    assert ["Charged", "", "6.000015 USD", "", ""] in rows
    assert "Invoice INV-000001" in text
    assert "&lt;b&gt;core" in text


def test_what_the_month_s_total_decides_is_told_with_its_steps(
    server: AdminServer, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = Schedule("graduated", (Step(0, 3_000_000), Step(10_000_000, 2_000_000)))
    rates = [Rate(Meter.INPUT, 3_000_000, "p_steps@priority", steps, 4_000_000)]
    card = sealed_card("USD", rates)
    of = {"tenant_id": TENANT, "team_path": (TEAM,), "usage": Meters(input=1_000_000)}
    stepped = "req_01m7yzmhg0znyyn9bw3sz6th1r"
    book(server.engine, october(stepped, charge_card=card, **of))

    typed = page(capsys, "rating", stepped)
    ((request,),) = [json.loads(page(capsys, "rating", stepped, "--json"))]

    assert "graduated by the month's tokens: 3 above 0, 2 above 10000000; the invoice has" in typed
    (rated,) = request["attempts"][0]["rating"]
    assert (rated["service_tier"], rated["list_price_per_million"]) == ("priority", "4")
    assert (rated["by_quantity"], rated["steps"]) == (
        "graduated",
        [
            {"above_tokens": 0, "unit_price_per_million": "3"},
            {"above_tokens": 10_000_000, "unit_price_per_million": "2"},
        ],
    )
    assert "graduated by the month's tokens" in page(capsys, "rating", stepped, "--page").replace(
        "&#x27;", "'"
    )


def test_a_line_is_credited_by_the_number_that_the_page_has(
    server: AdminServer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("credit", "INV-000001", "--line", "1", "--reason", "slow", "--amount")

    assert "-9.00 USD" in page(capsys, *asked, "9.00")
    assert main(["invoice", *asked, "0.01"]) == 1
    assert "only 0.00 USD" in capsys.readouterr().err


def test_the_pages_are_sealed_off_and_what_is_not_there_is_refused(server: AdminServer) -> None:
    with server.client() as client:
        (invoice,) = client.get("/invoices").json()["items"]
        path = f"/invoices/{invoice['id']}/requests.html"
        answers = [client.get(path), client.get("/usage/rating.html", params={"request_id": ONE})]
        no_line = client.get(path, params={"line_id": "99"})
        both = client.get("/usage/rating.html", params={"from": "2026-10-01T00:00:00Z"}).text
        no_request = client.get("/usage/rating.html", params={"request_id": "req_none"})

    for answer in answers:
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert "no-store" in answer.headers["cache-control"]
    assert "Rating of 2 requests" in both
    assert ONE in both
    assert OTHER in both
    assert (no_line.status_code, no_request.status_code) == (422, 404)


def test_a_tenant_sees_no_other_tenants_rating(server: AdminServer) -> None:
    with server.client() as admin:
        other = admin.post(
            "/tenants", json={"name": "globex", "currency": "USD", "timezone": "UTC"}
        ).json()
        scope = {"tenant": other["id"]}
        body = {"name": "theirs", "role": "finance", "scope": scope}
        token = admin.post("/admin-tokens", json=body).json()
    with server.client(token["secret"]) as globex:
        answer = globex.get("/usage/rating.html", params={"request_id": ONE})

    assert answer.status_code == 404
