"""Prices of a service tier in the admin API: of each tier they follow one another."""

from typing import Any

import httpx
import pytest

from tests.admin_server import Made, refused

BODY = {
    "book": "charge",
    "meter": "input",
    "amount_per_million": "3",
    "currency": "USD",
    "effective_from": "2026-01-01T00:00:00Z",
}


@pytest.fixture
def body(made: Made) -> dict[str, Any]:
    """Of a model of its own: the tests share one server."""
    return BODY | {"model": f"m-{made.name()}"}


def test_each_tier_has_one_price_of_a_meter_at_a_time(
    admin_client: httpx.Client, made: Made, body: dict[str, Any]
) -> None:
    standard = made.make("prices", **body)
    priority = made.make("prices", **body | {"service_tier": "priority", "amount_per_million": "6"})

    assert (standard["service_tier"], priority["service_tier"]) == ("standard", "priority")
    again = admin_client.post("/prices", json=body | {"service_tier": "priority"})
    assert (again.status_code, again.json()["code"]) == (409, "already_exists")
    query = {"model": body["model"], "service_tier": "priority"}
    assert admin_client.get("/prices", params=query).json()["items"] == [priority]
    assert admin_client.put(f"/prices/{priority['id']}", json=priority).json() == priority


def test_a_flag_with_the_wrong_key_or_an_unknown_tier_is_an_error(
    admin_client: httpx.Client, body: dict[str, Any]
) -> None:
    wrong_key = admin_client.post("/prices", json=body | {"processing": "batch"})
    unknown = admin_client.post("/prices", json=body | {"service_tier": "batches"})

    refused(wrong_key, 400, "processing")
    refused(unknown, 400, "service_tier")
    assert admin_client.get("/prices", params={"model": body["model"]}).json()["items"] == []


def test_the_first_price_of_a_tier_is_looked_at_beside_the_standard_one(
    admin_client: httpx.Client, made: Made, body: dict[str, Any]
) -> None:
    made.make("prices", **body)

    leaping = admin_client.post(
        "/prices", json=body | {"service_tier": "batch", "amount_per_million": "0.9"}
    )

    refused(leaping, 422, "amount_per_million")
    assert "less than a third of, the standard tier's 3" in leaping.json()["errors"][0]["message"]
    made.make("prices", **body | {"service_tier": "batch", "amount_per_million": "1.5"})
