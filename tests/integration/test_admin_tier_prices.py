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


def test_an_import_drafts_the_tiers_that_are_named_and_tells_of_the_others(
    admin_client: httpx.Client, made: Made
) -> None:
    asked = {"provider": "openai", "model": "gpt-5", "as_model": f"m-{made.name()}"}
    page = [
        {"meter": "input", "service_tier": "batch", "amount_per_million": "0.6"},
        {"meter": "input", "amount_per_million": "1.25"},
    ]

    plain = admin_client.post("/prices/import", json=asked).json()
    tiers = {"service_tiers": ["standard", "batch", "priority"]}
    checked = {"cross_check": {"name": "the page", "amounts": page}}
    whole = admin_client.post("/prices/import", json=asked | tiers | checked).json()

    assert {each["service_tier"] for each in plain["items"]} == {"standard"}
    assert "batch, flex, priority: has prices of its own; name it in service_tiers" in " ".join(
        plain["notes"]
    )
    drafts = {(each["service_tier"], each["meter"]): each for each in whole["items"]}
    assert {key: each["amount_per_million"] for key, each in drafts.items()} == {
        ("standard", "input"): "1.25", ("standard", "cache_read"): "0.125",
        ("standard", "output"): "10", ("batch", "input"): "0.625",
        ("batch", "cache_read"): "0.0625", ("batch", "output"): "5",
        ("priority", "input"): "2.5", ("priority", "cache_read"): "0.25",
        ("priority", "output"): "20",
    }  # fmt: skip
    assert {each["state"] for each in whole["items"]} == {"draft"}
    assert drafts["batch", "input"]["source"].endswith("; the page asks 0.6")
    assert "the page" not in drafts["priority", "input"]["source"]
    assert any(note.startswith("input (batch): the page asks 0.6") for note in whole["notes"])
