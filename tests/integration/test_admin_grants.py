"""Grants: beneath a budget and as a noun of their own; immutable, taken back, never forgotten."""

import time
from typing import Any

import httpx
import pytest

from gateway import clock
from gateway.stores.sql import configuration
from tests.admin_server import AdminServer, Made, refused

LATER = "2098-12-31T22:00:00Z"
ALLOWED = {"amount": "5.00", "until": LATER, "reason": "the launch"}


@pytest.fixture
def budget(made: Made) -> dict[str, Any]:
    return made.make("budgets", scope={"tenant": made.tenant()["id"]}, amount="10", period="month")


def granted(client: httpx.Client, budget: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer = client.post(f"/budgets/{budget['id']}/grants", json=ALLOWED | fields)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_grant_is_shown_on_its_budget_and_by_itself(
    admin_client: httpx.Client, budget: dict[str, Any]
) -> None:
    made = granted(admin_client, budget, approver="Ada")
    granted(admin_client, budget, amount="0.5")

    shown = admin_client.get(f"/budgets/{budget['id']}").json()
    assert (shown["amount"], shown["granted"], shown["remaining"]) == ("10", "5.5", "15.5")
    assert admin_client.get(f"/grants/{made['id']}").json() == made
    assert (made["amount"], made["until"], made["state"]) == ("5", LATER, "active")
    assert (made["approver"], made["reason"], made["period"]) == ("Ada", "the launch", "month")
    listed = admin_client.get(f"/budgets/{budget['id']}/grants").json()["items"]
    assert [each["approver"] for each in listed] == ["Ada", "admin token"]
    assert admin_client.get("/grants", params={"budget_id": budget["id"]}).json()["items"] == listed


def test_a_grant_that_is_taken_back_counts_no_more_and_stays_as_history(
    admin_house: AdminServer, admin_client: httpx.Client, budget: dict[str, Any]
) -> None:
    made = granted(admin_client, budget)
    path = f"/grants/{made['id']}"

    assert admin_client.delete(path).status_code == 204
    assert admin_client.delete(path).status_code == 204

    found = admin_client.get(path).json()
    assert (found["state"], found["revoked_at"] is None) == ("revoked", False)
    assert admin_client.get(f"/budgets/{budget['id']}").json()["granted"] == "0"
    of_it = [
        g for g in configuration.load(admin_house.engine).grants if g.budget_id == budget["id"]
    ]
    assert of_it == []


def test_what_was_granted_does_not_change_but_why_may_be_corrected(
    admin_client: httpx.Client, budget: dict[str, Any]
) -> None:
    made = granted(admin_client, budget)
    path = f"/grants/{made['id']}"

    refused(admin_client.put(path, json=made | {"amount": "6"}), 409)
    refused(admin_client.put(path, json=made | {"until": "2099-01-01T00:00:00Z"}), 409)
    again = admin_client.put(path, json=made | {"amount": "5.0", "reason": "the second launch"})
    assert (again.status_code, again.json()["reason"]) == (200, "the second launch")


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"amount": "0"}, 422, "amount"),
        ({"amount": "-1"}, 400, "amount"),
        ({"amount": "9007199.254740991"}, 422, "amount"),
        ({"until": "2020-01-01T00:00:00Z"}, 422, "until"),
        ({"until": "tomorrow"}, 422, "until"),
        ({"reason": ""}, 400, "reason"),
        ({"approver": ""}, 400, "approver"),
        ({"from": LATER}, 400, "from"),
    ],
)
def test_a_grant_that_cannot_be_meant_is_refused(
    admin_client: httpx.Client,
    budget: dict[str, Any],
    fields: dict[str, Any],
    status: int,
    field: str,
) -> None:
    answer = admin_client.post(f"/budgets/{budget['id']}/grants", json=ALLOWED | fields)
    refused(answer, status, field)


def test_a_grant_is_of_a_budget_that_exists_and_goes_with_it(
    admin_client: httpx.Client, budget: dict[str, Any]
) -> None:
    nobody = f"bud_{'0' * 26}"
    refused(admin_client.post(f"/budgets/{nobody}/grants", json=ALLOWED), 404)
    refused(admin_client.get(f"/budgets/{nobody}/grants"), 404)
    refused(admin_client.post("/grants", json=ALLOWED | {"budget_id": nobody}), 422, "budget_id")
    made = granted(admin_client, budget)

    assert admin_client.delete(f"/budgets/{budget['id']}").status_code == 204
    refused(admin_client.get(f"/grants/{made['id']}"), 404)


def test_a_grant_ends_by_the_clock(
    admin_house: AdminServer, admin_client: httpx.Client, budget: dict[str, Any]
) -> None:
    soon_us = time.time_ns() // 1000 + 700_000
    made = granted(admin_client, budget, until=clock.rfc3339(soon_us))
    assert made["state"] == "active"

    while time.time_ns() // 1000 < soon_us:
        time.sleep(0.05)

    assert admin_client.get(f"/grants/{made['id']}").json()["state"] == "expired"
    assert admin_client.get(f"/budgets/{budget['id']}").json()["granted"] == "0"
    loaded = configuration.load(admin_house.engine).grants
    assert made["id"] not in {grant.id for grant in loaded}
