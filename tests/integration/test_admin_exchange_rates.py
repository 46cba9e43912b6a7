"""Exchange rates over HTTP: entered, imported, never changed; an invoice that is made at one."""

import csv
import io
from decimal import Decimal
from typing import Any

import httpx
import pytest

from billing.meters import Meters
from gateway.clock import parse_rfc3339
from gateway.stores.sql import usage
from tests.admin_server import AdminServer, Made, refused
from tests.focus_rules import faults
from tests.ledger_events import a_card, an_event

RATE = {"base": "USD", "quote": "EUR", "rate": "0.9137", "day": "2026-10-31", "source": "ECB"}


def test_rates_are_imported_once_however_often_they_are_sent(admin_client: httpx.Client) -> None:
    rates = [
        {"base": "EUR", "quote": quote, "rate": rate, "day": "2026-10-30"}
        for quote, rate in (("PLN", "4.2512"), ("SEK", "11.0345"))
    ]

    def imported(source: str) -> Any:
        body = {"source": source, "rates": rates}
        return admin_client.post("/exchange-rates/import", json=body).json()

    none: dict[str, Any] = {"drafts": [], "notes": []}
    assert imported("ECB") == {"added": 2, "known": 0} | none
    assert imported("ECB") == {"added": 0, "known": 2} | none
    assert imported("a bank") == {"added": 2, "known": 0} | none
    asked = {"base": "EUR", "quote": "PLN", "source": "ECB"}
    (found,) = admin_client.get("/exchange-rates", params=asked).json()["items"]
    assert found == rates[0] | {
        "source": "ECB", "id": found["id"], "created_at": found["created_at"], "counts": False,
        "state": "approved", "draft_id": None,
    }  # fmt: skip
    assert admin_client.get(f"/exchange-rates/{found['id']}").json() == found
    assert admin_client.delete(f"/exchange-rates/{found['id']}").status_code == 405


def test_of_two_rates_of_a_day_the_later_counts_and_both_say_so(
    admin_client: httpx.Client,
) -> None:
    day = RATE | {"base": "NOK", "day": "2026-10-29", "rate": "0.0879"}
    first = admin_client.post("/exchange-rates", json=day).json()
    second = admin_client.post("/exchange-rates", json=day | {"rate": "0.0883"}).json()

    assert (first["counts"], first["instead_of"]) == (True, None)
    assert (second["counts"], second["instead_of"]) == (True, first["id"])
    assert admin_client.get(f"/exchange-rates/{first['id']}").json()["counts"] is False
    assert admin_client.get(f"/exchange-rates/{second['id']}").json()["counts"] is True


def test_a_rate_that_leaps_counts_once_somebody_else_has_approved_it(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    """Entered the wrong way round, as most mistakes are."""
    day = RATE | {"base": "DKK", "day": "2026-10-28", "rate": "0.1339"}
    right = admin_client.post("/exchange-rates", json=day).json()
    for wrong in (day | {"rate": "7.4682"}, day | {"base": "EUR", "quote": "DKK"}):
        for when in ("2026-10-28", "2026-10-10", "2026-11-20"):
            at_once = admin_client.post("/exchange-rates", json=wrong | {"day": when})
            refused(at_once, 422, "rate")
            assert "away from 0.1339 EUR for 1 DKK on 2026-10-28" in at_once.json()["detail"]
    turned = {"base": "EUR", "quote": "DKK", "rate": "7.4682", "day": "2026-10-29"}
    assert made.make("exchange-rates", **turned, source="ECB")["state"] == "approved"

    draft = made.make("exchange-rates", **day | {"rate": "0.2"}, state="draft")
    path = f"/exchange-rates/{draft['id']}"
    assert (draft["counts"], draft["instead_of"]) == (False, None)
    assert admin_client.get(f"/exchange-rates/{right['id']}").json()["counts"] is True
    token = made.make("admin-tokens", name="greta", role="platform_admin")["secret"]
    with admin_house.client(token) as greta:
        done = [greta.post(f"{path}/approve").json() for _ in range(2)]

    assert (done[0]["counts"], done[0]["instead_of"]) == (True, right["id"])
    assert done[0]["draft_id"] == draft["id"]
    assert done[1] == done[0] | {"instead_of": None}
    assert admin_client.get(path).json()["state"] == "draft"
    assert admin_client.get(f"/exchange-rates/{right['id']}").json()["counts"] is False


def test_an_import_drafts_what_leaps_and_says_so_once(admin_client: httpx.Client) -> None:
    rates = [
        {"base": "EUR", "quote": "HUF", "rate": rate, "day": f"2026-10-{day}"}
        for day, rate in (("27", "389.1"), ("28", "39.02"), ("29", "391.4"))
    ]
    body = {"source": "ECB", "rates": rates}

    first, again = (admin_client.post("/exchange-rates/import", json=body).json() for _ in "12")

    assert (first["added"], first["known"], len(first["drafts"])) == (2, 0, 1)
    assert "39.02 HUF for 1 EUR on 2026-10-28 is more than 10 percent away" in first["notes"][0]
    assert again == {"added": 0, "known": 3, "drafts": [], "notes": []}
    asked = {"quote": "HUF", "state": "draft"}
    (found,) = admin_client.get("/exchange-rates", params=asked).json()["items"]
    assert (found["id"], found["counts"]) == (first["drafts"][0], False)


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("rate", "0", 422),
        ("rate", "-1", 400),
        ("base", "XXX", 422),
        ("quote", "USD", 422),
        ("day", "2026-02-30", 422),
        ("day", "2999-01-01", 422),
        ("source", "", 400),
    ],
)
def test_a_rate_that_cannot_be_is_refused_by_name(
    admin_client: httpx.Client, field: str, value: str, status: int
) -> None:
    refused(admin_client.post("/exchange-rates", json=RATE | {field: value}), status, field)


def test_an_import_with_one_bad_rate_adds_none_and_names_it(admin_client: httpx.Client) -> None:
    good = {name: value for name, value in RATE.items() if name != "source"}
    good |= {"base": "GBP"}
    body = {"source": "half", "rates": [good, good | {"rate": "0"}]}

    refused(admin_client.post("/exchange-rates/import", json=body), 422, "rates[1].rate")

    assert admin_client.get("/exchange-rates", params={"source": "half"}).json()["items"] == []


def test_an_invoice_in_another_currency_waits_for_a_rate_and_keeps_it(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    tenant = made.tenant(currency="GBP", timezone="UTC")
    team = made.team(tenant["id"], name="search", cost_center="CC-1")
    key = made.key(team["id"], name="indexer")
    whose = {"tenant_id": tenant["id"], "team_path": (team["id"],), "key_id": key["id"]}
    at = {
        "admitted_at_us": parse_rfc3339("2026-10-14T12:00:00Z"),
        "currency": "GBP",
        "cost_card": None,
    }
    card = a_card(3_000_000, 15_000_000, "pounds", "GBP")
    event = an_event("req_gbp", usage=Meters(input=10_000_001), charge_card=card, **whose, **at)
    usage.record(admin_house.engine, [(event, True)])
    terms = f"/tenants/{tenant['id']}/billing"
    refused(admin_client.put(terms, json={"currency": "EUX"}), 422, "currency")
    assert admin_client.put(terms, json={"currency": "EUR"}).json()["currency"] == "EUR"
    asked = {"tenant_id": tenant["id"], "period": "2026-10"}

    missing = admin_client.post("/invoices", json=asked)
    assert (missing.status_code, missing.json()["code"]) == (409, "no_exchange_rate")
    assert "from GBP to EUR of 2026-10-31" in missing.text
    admin_client.post("/exchange-rates", json=RATE | {"base": "GBP", "rate": "1.15123"})
    draft = admin_client.post("/invoices", json=asked).json()
    issued = admin_client.post(f"/invoices/{draft['id']}/issue").json()

    one = f"/invoices/{issued['id']}"
    assert (issued["currency"], issued["total"]) == ("EUR", "34.54")
    assert issued["exchange"] == {
        "currency": "GBP", "amount": "30.000003", "rate": "1.15123", "day": "2026-10-31",
        "source": "ECB", "earlier": {},
    }  # fmt: skip
    manifest = admin_client.get(f"{one}/manifest").json()
    assert (manifest["amount"], manifest["intact"]) == ("34.54", True)
    listed = admin_client.get(f"{one}/lines").json()["items"]
    assert [each["amount"] for each in listed] == ["34.53690345369", "0.00309654631"]
    assert (listed[0]["unit_price_per_million"], listed[0]["printed"]) == ("3.45369", "34.54")
    page = admin_client.get(f"{one}/page.html").text
    assert "30.000003 GBP at 1 GBP = 1.15123 EUR (ECB, 31 October 2026)" in page
    _check_focus(admin_client, issued)
    detail = admin_client.get(f"{one}/focus-detail.csv").text
    owed = [row["BilledCost"] for row in csv.DictReader(io.StringIO(detail))]
    assert sum(map(Decimal, owed)) == Decimal("34.54")
    note = {"amount": "34.54", "reason": "wrong tenant"}
    credit = admin_client.post(f"{one}/credit-notes", json=note).json()
    assert (credit["currency"], credit["total"]) == ("EUR", "-34.54")
    assert credit["exchange"] == issued["exchange"] | {"amount": None}
    _check_focus(admin_client, credit)
    _check_explained(admin_client, issued, ("30.000003", "GBP", "34.54", "EUR"))
    _check_explained(admin_client, credit, ("-34.54", "EUR", "-34.54", "EUR"))


def _check_explained(admin_client: httpx.Client, invoice: dict[str, Any], figures: Any) -> None:
    """What was billed in the currency it was rated in, and what that came to."""
    one = f"/invoices/{invoice['id']}/requests"
    behind = admin_client.get(one).json()
    named = ("billed", "currency", "total", "total_currency")
    assert tuple(behind[name] for name in named) == figures
    page = admin_client.get(f"{one}.html").text
    assert " ".join(figures[:2]) in page
    assert ("34.54 EUR, each line at its rate" in page) == (figures[1] != "EUR")


def _check_focus(admin_client: httpx.Client, invoice: dict[str, Any]) -> None:
    focus = admin_client.get(f"/invoices/{invoice['id']}/focus.csv")
    assert faults(focus.content, {invoice["number"]: Decimal(invoice["total"])}) == []
    rows = list(csv.DictReader(io.StringIO(focus.text)))
    assert {row["BillingCurrency"] for row in rows} == {"EUR"}
    usage_rows = [row for row in rows if row["ChargeCategory"] == "Usage"]
    assert {row["PricingCurrency"] for row in usage_rows} <= {"GBP"}
    for row in usage_rows:
        assert row["PricingCurrencyContractedUnitPrice"] == "3.0"
        assert row["PricingCurrencyEffectiveCost"] == "30.000003"
        assert row["BilledCost"] == row["ContractedCost"] == "34.53690345369"
