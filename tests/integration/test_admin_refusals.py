"""Refusals are for people: rules in words, the values that are allowed, every fault at once."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.admin.api import operations
from gateway.admin.operation import Operation
from tests.admin_server import AdminServer, Made, admin_server

MISSING = "0" * 26


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminServer]:
    with admin_server(f"sqlite:///{tmp_path_factory.mktemp('admin') / 'a.db'}") as server:
        yield server


@pytest.fixture
def client(server: AdminServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def faults(answer: httpx.Response, status: int = 400) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    return {each["field"]: each["message"] for each in answer.json()["errors"]}


def test_every_bad_field_of_a_body_is_named_at_once_with_its_rule_in_words(
    client: httpx.Client,
) -> None:
    body = {
        "scope": {"tenant": "acme"},
        "amount": 12.5,
        "period": "fortnight",
        "mode": "firm",
        "thresholds": [50, 5000],
        "colour": "red",
        "currencey": "EUR",
    }

    found = faults(client.post("/budgets", json=body))

    assert found == {
        "scope.tenant": 'must be an id such as tenant_..., not "acme"',
        "amount": 'must be an exact amount such as "12.50", not 12.5; put it in quotes',
        "period": 'must be one of day, week, month, quarter, total, not "fortnight"',
        "mode": 'must be one of hard, soft, not "firm"',
        "thresholds[1]": "must be a whole number from 1 to 1000, not 5000",
        "colour": "there is no such field",
        "currencey": "there is no such field; did you mean currency?",
    }


def test_what_is_missing_is_named_beside_what_is_wrong(client: httpx.Client) -> None:
    answer = client.post("/models", json={"targets": [{"weight": 0}, 5], "capabilities": []})

    assert faults(answer) == {
        "name": "this field is required",
        "targets[0].backend_id": "this field is required",
        "targets[0].upstream_model": "this field is required",
        "targets[0].weight": "must be a whole number from 1 to 10000, not 0",
        "targets[1]": "must be an object with backend_id, upstream_model, weight, not 5",
        "capabilities": "must be a list of 1 to 8 items, each one of chat, completions, "
        "embeddings, tools, json_schema, vision, audio, reasoning, not []",
    }
    assert all(field in answer.json()["detail"] for field in faults(answer))


def test_values_that_cannot_be_accepted_are_named_together_too(client: httpx.Client) -> None:
    tenant = {"name": "a", "currency": "EUX", "timezone": "Mars/Olympus", "tag_names": ["a", "a"]}
    backend = {
        "name": "b",
        "region": "r",
        "base_url": "ftp://x",
        "jurisdictions": ["UK", "QQ"],
    }
    model = {
        "name": "m",
        "targets": [{"backend_id": f"backend_{MISSING}", "upstream_model": "m"}],
        "context_window": 10,
        "max_output_tokens": 20,
        "bytes_factor": "0",
    }

    assert set(faults(client.post("/tenants", json=tenant), 422)) == {
        "currency",
        "timezone",
        "tag_names",
    }
    found = faults(client.post("/backends", json=backend), 422)
    assert set(found) == {"base_url", "jurisdictions[0]", "jurisdictions[1]"}
    assert "'GB' is" in found["jurisdictions[0]"]
    assert set(faults(client.post("/models", json=model), 422)) == {
        "targets[0].backend_id",
        "bytes_factor",
        "max_output_tokens",
    }


def test_a_price_names_all_that_its_book_needs_and_has_not(client: httpx.Client) -> None:
    body = {"book": "cost", "meter": "input", "amount_per_million": "1", "currency": "EUR"}

    found = faults(client.post("/prices", json=body | {"model": "chat"}), 422)

    assert found == {
        "backend_id": "a cost price needs it",
        "upstream_model": "a cost price needs it",
        "model": "a cost price has none",
    }


def test_a_parameter_of_a_list_says_what_it_takes(client: httpx.Client) -> None:
    answer = client.get("/prices", params={"limit": "many", "book": "blue", "cursor": "7"})

    assert faults(answer) == {
        "limit": 'must be a whole number from 1 to 200, not "many"',
        "book": 'must be one of charge, cost, not "blue"',
        "cursor": 'must be the `next` of the page before, not "7"',
    }


def test_a_refused_credential_is_not_repeated(client: httpx.Client) -> None:
    body = {"name": "b", "region": "r", "base_url": "http://127.0.0.1:9/v1", "credential": "s 3"}

    answer = client.post("/backends", json=body)

    assert faults(answer) == {
        "credential": "must be a secret of printable ASCII characters without spaces"
    }
    assert "s 3" not in answer.text


UNSEEN = (
    "it has a character that nobody sees, {}, and that may change how the rest is read: write it "
    "without"
)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/tenants", {"name": "Acme\u202e"}, "name"),
        ("/teams", {"name": "Acme", "cost_center": "CC\u202e7"}, "cost_center"),
        ("/keys", {"name": "\u202ebot"}, "name"),
        ("/models", {"name": "chat\u202e"}, "name"),
        ("/exchange-rates", {"source": "ECB\u202e"}, "source"),
        (f"/invoices/inv_{MISSING}/void", {"reason": "a\u202eb"}, "reason"),
        (f"/invoices/inv_{MISSING}/credit-notes", {"reason": "a\u202eb"}, "reason"),
    ],
)
def test_a_name_with_a_character_that_nobody_sees_is_refused(
    client: httpx.Client, path: str, body: dict[str, Any], field: str
) -> None:
    found = faults(client.post(path, json=body))

    assert found == {field: UNSEEN.format("U+202E RIGHT-TO-LEFT OVERRIDE")}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"recipient": {"name": "Acme\u200b"}}, "recipient.name"),
        ({"issuer": {"name": "A", "address": ["1 Main St", "Ber\u200blin"]}}, "issuer.address[1]"),
        ({"purchase_order": "PO-\u200b7"}, "purchase_order"),
        ({"tax": {"VAT": "\u200b0"}}, "tax.VAT"),
    ],
)
def test_so_is_what_an_invoice_says_of_the_parties(
    client: httpx.Client, body: dict[str, Any], field: str
) -> None:
    found = faults(client.put(f"/tenants/tenant_{MISSING}/billing", json=body))

    assert found == {field: UNSEEN.format("U+200B ZERO WIDTH SPACE")}


def test_an_end_user_is_named_as_the_app_did(client: httpx.Client) -> None:
    path = f"/tenants/tenant_{MISSING}/end-users/find"

    assert client.post(path, json={"user": "anna\u200b"}).status_code == 404


WRONG: tuple[Any, ...] = (None, True, -1, 1.5, "", " ", "§", [], [[]], [{}], {}, {"x": 1})


@pytest.mark.parametrize(
    "operation",
    [each for each in operations() if each.body is not None and isinstance(each.body, type)],
    ids=lambda each: f"{each.method} {each.path}",
)
def test_no_refusal_shows_a_pattern_or_a_type_of_the_program(
    client: httpx.Client, operation: Operation
) -> None:
    """Whatever is put into whichever field."""
    path = operation.path.replace("{id}", f"x_{MISSING}")
    for value in WRONG:
        body = dict.fromkeys(operation.body.__struct_fields__, value)
        answer = client.request(operation.method, path, json=body)

        assert answer.status_code < 500, answer.text
        for word in ("regex", "Expected", "`str`", "[a-z"):
            assert word not in answer.text


def test_what_is_meant_is_still_accepted(client: httpx.Client) -> None:
    made = Made(client)
    tenant = made.tenant()

    budget = made.make("budgets", scope={"tenant": tenant["id"]}, amount="12.50", period="week")

    assert budget["amount"] == "12.50"
