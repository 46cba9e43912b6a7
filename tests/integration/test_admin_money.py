"""Budgets, limits and prices: exact, bounded, in one currency."""

from typing import Any

import httpx
import pytest

from gateway.stores.sql import configuration
from policies.accounts import Balance
from tests.admin_server import AdminServer, Made, refused

MISSING = "00000000000000000000000000"


def test_a_budget_shows_what_is_spent_held_leased_and_left_exactly(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    tenant = made.tenant()
    budget = made.make(
        "budgets", scope={"tenant": tenant["id"]}, amount="123456.789012345", period="total"
    )
    key = f"mh:{{s00}}:acct:{budget['id']}:total"
    admin_house.accounts[key] = Balance(123_456_000_000_001, 700_000_000, 80_000_000)

    found = admin_client.get(f"/budgets/{budget['id']}").json()

    assert (budget["spent"], budget["held"], budget["leased"]) == ("0", "0", "0")
    assert (found["spent"], found["held"]) == ("123456.000000001", "0.7")
    assert (found["leased"], found["remaining"]) == ("0.08", "0.009012344")
    assert found["currency"] == "EUR"


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"amount": "9007199.254740992"}, 422, "amount"),
        ({"amount": "0.0000000001"}, 422, "amount"),
        ({"amount": "-1"}, 400, "amount"),
        ({"amount": "1e3"}, 400, "amount"),
        ({"amount": 1}, 400, "amount"),
        ({"amount": "NaN"}, 400, "amount"),
        ({"currency": "USD"}, 422, "currency"),
        ({"period": "decade"}, 400, "period"),
        ({"mode": "firm"}, 400, "mode"),
        ({"thresholds": [80, 50]}, 422, "thresholds"),
        ({"scope": {}}, 422, "scope"),
        ({"scope": {"tenant": f"tenant_{MISSING}"}}, 422, "scope.tenant"),
        ({"scope": {"planet": "x"}}, 400, "scope.planet"),
    ],
)
def test_a_budget_that_could_not_be_kept_is_refused(
    admin_client: httpx.Client, made: Made, fields: dict[str, Any], status: int, field: str
) -> None:
    tenant = made.tenant()
    body = {"scope": {"tenant": tenant["id"]}, "amount": "10", "period": "month"} | fields

    refused(admin_client.post("/budgets", json=body), status, field)


def test_the_largest_budget_that_can_be_counted_exactly_is_accepted(made: Made) -> None:
    tenant = made.tenant()

    budget = made.make(
        "budgets", scope={"tenant": tenant["id"]}, amount="9007199.254740991", period="day"
    )

    assert budget["remaining"] == "9007199.254740991"


def test_a_scope_has_one_budget_a_period_and_one_limit(
    admin_client: httpx.Client, made: Made
) -> None:
    scope = {"tenant": made.tenant()["id"]}
    budget = {"scope": scope, "amount": "1", "period": "day"}
    limit = {"scope": scope, "concurrent_requests": 1}
    made.make("budgets", **budget)
    made.make("limits", **limit)

    refused(admin_client.post("/budgets", json=budget), 409)
    refused(admin_client.post("/limits", json=limit), 409)
    refused(admin_client.post("/limits", json={"scope": scope}), 422)
    assert admin_client.post("/budgets", json=budget | {"period": "week"}).status_code == 201


def test_an_approved_price_is_immutable_and_a_draft_is_not(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    body = {
        "book": "charge",
        "model": "dated",
        "meter": "input",
        "amount_per_million": "0.10",
        "currency": "EUR",
        "effective_from": "2026-01-01T00:00:00Z",
    }
    draft = made.make("prices", **body, state="draft")
    path = f"/prices/{draft['id']}"
    assert _in_force(admin_house, draft) == []

    corrected = body | {"amount_per_million": "0.20", "state": "draft"}
    assert admin_client.put(path, json=corrected).status_code == 200
    approved = admin_client.post(f"{path}/approve")
    assert approved.json()["state"] == "approved"
    assert admin_client.post(f"{path}/approve").json() == approved.json()

    refused(admin_client.put(path, json=corrected), 409)
    assert admin_client.put(path, json=approved.json()).status_code == 200
    refused(admin_client.post("/prices", json=body), 409)
    assert _in_force(admin_house, draft) == ["0.20"]


def test_a_draft_that_names_no_day_begins_when_it_is_approved(
    admin_client: httpx.Client, made: Made
) -> None:
    draft = made.make(
        "prices", book="charge", model="undated", meter="input", amount_per_million="1",
        currency="EUR", state="draft",
    )  # fmt: skip

    approved = admin_client.post(f"/prices/{draft['id']}/approve").json()

    assert approved["effective_from"] > draft["effective_from"] == draft["created_at"]


def _in_force(admin_house: AdminServer, price: dict[str, Any]) -> list[str]:
    found = configuration.load(admin_house.engine).prices
    return [each.amount_per_million for each in found if each.id == price["id"]]


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"model": None}, 422, "model"),
        ({"upstream_model": "x"}, 422, "upstream_model"),
        ({"book": "cost", "model": None}, 422, "backend_id"),
        ({"meter": "smiles"}, 400, "meter"),
        ({"amount_per_million": "0.0000001"}, 400, "amount_per_million"),
        ({"amount_per_million": "-1"}, 400, "amount_per_million"),
        ({"amount_per_million": "1e2"}, 400, "amount_per_million"),
        ({"amount_per_million": 0.1}, 400, "amount_per_million"),
        ({"currency": "XXX"}, 422, "currency"),
        ({"effective_from": "2026-01-01"}, 422, "effective_from"),
        ({"tenant_id": f"tenant_{MISSING}"}, 422, "tenant_id"),
    ],
)
def test_a_price_that_cannot_be_meant_is_refused(
    admin_client: httpx.Client, fields: dict[str, Any], status: int, field: str
) -> None:
    body = {
        "book": "charge",
        "model": "chat",
        "meter": "input",
        "amount_per_million": "0.10",
        "currency": "EUR",
    }

    refused(admin_client.post("/prices", json=body | fields), status, field)


def test_a_tenants_own_price_is_in_the_tenants_currency(
    admin_client: httpx.Client, made: Made
) -> None:
    body = {
        "book": "charge",
        "model": "chat",
        "tenant_id": made.tenant()["id"],
        "meter": "input",
        "amount_per_million": "0.10",
        "currency": "USD",
    }

    refused(admin_client.post("/prices", json=body), 422, "currency")
    assert admin_client.post("/prices", json=body | {"currency": "EUR"}).status_code == 201


def test_a_minimum_that_no_row_has_room_for_is_refused_as_it_is_entered(
    admin_house: AdminServer, admin_client: httpx.Client, made: Made
) -> None:
    path = f"/tenants/{made.tenant(currency='VND')['id']}/billing"

    answer = admin_client.put(path, json={"minimum": "9223373"})

    if admin_house.engine.dialect.name == "postgresql":
        assert answer.status_code == 200
        return
    assert (answer.status_code, answer.json()["code"]) == (422, "amount_too_large")
    assert answer.json()["detail"].startswith("minimum: what a month asks for comes to 9223373")
    assert admin_client.put(path, json={"minimum": "9223372"}).status_code == 200


def test_an_invoice_beyond_what_it_can_state_is_refused_with_a_sentence(
    admin_client: httpx.Client, made: Made
) -> None:
    """On both databases: minor units are 64 bits in either."""
    rate = {"base": "CHF", "quote": "CLF", "rate": "999999999", "day": "2026-10-31"}
    made.make("exchange-rates", **rate, source="a typing error")
    tenant = made.tenant(currency="CHF")
    terms = {"minimum": "9000000", "currency": "CLF"}
    assert admin_client.put(f"/tenants/{tenant['id']}/billing", json=terms).is_success

    answer = admin_client.post("/invoices", json={"tenant_id": tenant["id"], "period": "2026-10"})

    assert (answer.status_code, answer.json()["code"]) == (422, "amount_too_large")
    assert "comes to 8999999991000000.0000 CLF" in answer.json()["detail"]
    assert "an invoice states 922337203685477.5807 at most" in answer.json()["detail"]
